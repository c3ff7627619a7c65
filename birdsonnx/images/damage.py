"""Damage that decoders pass over in silence.

libjpeg knows no block of zeros: by their codes they are pixels, and the rest is found again. Of 300 real
photos with 512 zeros in them it warned of 87 %. libtiff does not say what libjpeg warns of, and looks at the
checksum of a deflated strip only where its pixels do not end before.
"""

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import simplejpeg
from PIL import Image

from birdsonnx.images.photo_file import MAX_PIXELS, size_of

HOLE = bytes(64)
"""No coded picture holds so many zeros, unless zeros are how its coding says "nothing here"."""

MOST_SCANS = 100
"""Of a progressive JPEG; encoders write about ten. Each goes over all pixels, of which a few bytes can make
any number of scans."""

MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""What ends a scan: in coded data 0 follows each 255, or a restart's number."""
BARE = (0x01, *range(0xD0, 0xD9))
"""Markers without a length."""
SOF0, SOF1, DHT, EOI, SOS = 0xC0, 0xC1, 0xC4, 0xD9, 0xDA
NOTHING = 0
"""The symbol of a block whose other coefficients are 0."""

JPEG_TABLES, STRIPS, TILES = 347, (273, 279), (324, 325)
"""TIFF's tags: tables that all strips share; where strips or tiles are, and how long."""


def require_whole_jpeg(content: bytes) -> None:
    """Look for what libjpeg passes over. Raises ValueError.

    A run of zeros within a sequential scan is damage unless its tables say by zeros that the rest of a block
    is nothing, as for a plain background: else it would be block after block of the highest contrast.
    """
    if HOLE not in content and content.count(bytes((255, SOS))) <= MOST_SCANS:
        return
    is_sequential = False
    of_zeros: dict[int, int] = {}
    scans = 0
    for marker, body, start, end in _segments(content):
        if marker == DHT:
            of_zeros.update(_first_symbols(body))
        elif marker == SOS:
            scans += 1
            tables = [0x10 | selector & 15 for selector in body[2 : 1 + 2 * body[0] : 2]]
            is_plain = all(of_zeros.get(table) == NOTHING for table in tables)
            if is_sequential and not is_plain and content.find(HOLE, start, end) >= 0:
                raise ValueError("a block of zeros lies within its pixels")
        elif 0xC0 <= marker <= 0xCF:
            is_sequential = marker in (SOF0, SOF1)
    if scans > MOST_SCANS:
        raise ValueError(f"it has more than {MOST_SCANS} scans")


def _segments(content: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Each marker of a JPEG, its body, and where the coded data after it begin and end."""
    place = 2
    while found := MARKER.search(content, place):
        marker, place = content[found.end() - 1], found.end()
        if marker == EOI:
            return
        if marker in BARE:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        body, place = content[place + 2 : place + length], place + max(2, length)
        end = place
        if marker == SOS:
            following = MARKER.search(content, place)
            end = following.start() if following else len(content)
        yield marker, body, place, end
        place = end


def _first_symbols(body: bytes) -> dict[int, int]:
    """The symbol whose code is all zeros, of each Huffman table of a DHT segment."""
    found = {}
    while len(body) > 17:
        found[body[0]] = body[17]
        body = body[17 + sum(body[1:17]) :]
    return found


def require_whole_tiff(file: BinaryIO, image: Image.Image) -> None:
    """Look at the strips or tiles of a TIFF whose coding shows damage that libtiff passes over. Raises
    ValueError or zlib.error."""
    coding = image.info.get("compression")
    if coding not in ("jpeg", "tiff_adobe_deflate", "tiff_deflate"):
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    offsets, counts = STRIPS if STRIPS[0] in tags else TILES
    left = 4 * MAX_PIXELS
    if sum(tags[counts]) > size_of(file):
        raise ValueError("its strips are longer than the file")
    for offset, count in zip(tags[offsets], tags[counts], strict=True):
        file.seek(offset)
        piece = file.read(count)
        if coding == "jpeg":
            left -= _checked_jpeg(tags.get(JPEG_TABLES, b"")[:-2] + piece[2:], left)
        else:
            left -= _checked_deflate(piece, left)


def _checked_jpeg(content: bytes, most: int) -> int:
    """Bytes of the pixels that a JPEG holds; it is decoded to see that libjpeg does not warn."""
    if not content.startswith(b"\xff\xd8"):
        content = b"\xff\xd8" + content
    height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    if 4 * height * width > most:
        raise ValueError("its strips hold more pixels than the picture can have")
    require_whole_jpeg(content)
    simplejpeg.decode_jpeg(content, "CMYK" if colors in ("CMYK", "YCCK") else "GRAY")
    return int(4 * height * width)


def _checked_deflate(piece: bytes, most: int) -> int:
    """Bytes that a zlib stream unpacks to, which are not kept; its checksum stands at its end."""
    stream = zlib.decompressobj()
    total = 0
    while not stream.eof:
        unpacked = len(stream.decompress(piece, 2**20))
        piece, total = stream.unconsumed_tail, total + unpacked
        if total > most:
            raise ValueError("its strips hold more than the picture can have")
        if not unpacked and not piece and not stream.eof:
            raise ValueError("a strip ends early")
    return total
