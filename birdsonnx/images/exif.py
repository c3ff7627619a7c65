"""What a photo's header says of it: its size, and in EXIF when, with what and where it was taken.

EXIF 2.32 (CIPA DC-008): 4.6.5 for the time and the camera, 4.6.6 for the place. Pillow finds it in JPEG,
TIFF, PNG, WebP, AVIF and HEIC. What is damaged or makes no sense counts as absent, each thing by itself.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, TypeVar

from PIL import ExifTags, Image

from birdsonnx.images.photo_file import Source, image_in, opened

T = TypeVar("T")

LONGEST_TEXT = 200
"""Characters of a text that are kept; the names of cameras have up to 40."""

HIGHEST_M = 100_000
"""Where the atmosphere ends, and deeper than any sea: an altitude beyond is none."""

TIME = re.compile(r"([0-9]{4})[:/-]([0-9]{2})[:/-]([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})", re.ASCII)
"""EXIF has colons in the date too; some cameras and programs write it as others do."""

OFFSET = re.compile(r"([+-])([0-9]{2}):([0-9]{2})", re.ASCII)

SIDEWAYS = (5, 6, 7, 8)
"""Orientations of photos that are stored lying on their side."""

BELOW = (1, 3)
"""GPSAltitudeRef of altitudes below the sea, or the ellipsoid."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a photo says of it; None or empty where it does not say."""

    width: int
    height: int
    """Pixels of the upright photo, as people and the network see it."""
    time: datetime | None = None
    """When it was taken, by the camera's clock (DateTimeOriginal); with its offset from UTC where it says
    that too."""
    make: str = ""
    model: str = ""
    serial: str = ""
    """Of the camera (BodySerialNumber); many camera traps keep it in notes of their own, which nobody else
    reads."""
    latitude: float | None = None
    """Degrees, north positive; never without the longitude."""
    longitude: float | None = None
    """Degrees, east positive."""
    altitude_m: float | None = None


def header_of(source: Source) -> Header:
    """What a photo's header says. No pixels are decoded.

    Raises:
        ImageError: it is no photo that can be read.
    """
    with opened(source) as file, image_in(file, source) as image:
        exif = _safely(lambda: _exif_of(file, image)) or Image.Exif()
        details = _safely(lambda: exif.get_ifd(ExifTags.IFD.Exif)) or {}
        place = _safely(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo)) or {}
        width, height = image.size
        if _safely(lambda: exif.get(ExifTags.Base.Orientation)) in SIDEWAYS:
            width, height = height, width
        latitude, longitude = _safely(lambda: _position(place)) or (None, None)
        return Header(
            width,
            height,
            _safely(lambda: _time(details)),
            _safely(lambda: _text(exif.get(ExifTags.Base.Make))) or "",
            _safely(lambda: _text(exif.get(ExifTags.Base.Model))) or "",
            _safely(lambda: _text(details.get(ExifTags.Base.BodySerialNumber))) or "",
            latitude,
            longitude,
            _safely(lambda: _altitude_m(place)),
        )


def iso_time(time: datetime) -> str:
    """ISO 8601: `2026-05-04T07:31:12`, with `.250` and `+02:00` where they are known."""
    return time.isoformat(timespec="milliseconds" if time.microsecond else "seconds")


def _safely(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Exception:  # damaged metadata: Pillow raises whatever its parser meets, and the pixels are fine
        return None


def _exif_of(file: BinaryIO, image: Image.Image) -> Image.Exif:
    # Pillow decodes a whole PNG to look for EXIF behind its pixels: 25 ms of 2 megapixels, for nothing.
    if image.format == "PNG" and not _has_late_exif(file):
        return Image.Image.getexif(image)
    return image.getexif()


def _has_late_exif(file: BinaryIO) -> bool:
    """Whether a PNG has EXIF behind its pixels (PNG 3, 5.3: each chunk is length, type, data, checksum)."""
    place = file.tell()
    try:
        file.seek(8)
        has_pixels = False
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if has_pixels and kind == b"eXIf":
                return True
            has_pixels = has_pixels or kind == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
        return False
    finally:
        file.seek(place)


def _time(details: Mapping[int, Any]) -> datetime | None:
    found = TIME.match(_text(details.get(ExifTags.Base.DateTimeOriginal)))
    if found is None:
        return None
    time = datetime(*map(int, found.groups()))  # type: ignore[arg-type]
    fraction = _text(details.get(ExifTags.Base.SubsecTimeOriginal))
    if fraction.isascii() and fraction.isdecimal():
        time = time.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    offset = OFFSET.fullmatch(_text(details.get(ExifTags.Base.OffsetTimeOriginal)))
    if offset is None or int(offset[2]) > 23 or int(offset[3]) > 59:
        return time
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return time.replace(tzinfo=timezone(-ahead if offset[1] == "-" else ahead))


def _text(value: Any) -> str:
    """What EXIF holds as one clean line, without the zeros and blanks that fill it up; what comes after a
    zero is no part of it."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return str(value) if isinstance(value, int) else ""
    text = value[:LONGEST_TEXT].lstrip("\0").partition("\0")[0]
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _position(place: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """Latitude and longitude, both or none."""
    gps = ExifTags.GPS
    latitude = _degrees(place.get(gps.GPSLatitude), place.get(gps.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(place.get(gps.GPSLongitude), place.get(gps.GPSLongitudeRef), "EW", 180)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(value: Any, reference: Any, sides: str, most: float) -> float | None:
    """Degrees, minutes and seconds as signed degrees; `sides` are the letters of the positive and the
    negative side, without one of which it could be either."""
    side = _text(reference).upper()
    parts = [float(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    if side not in tuple(sides) or not 1 <= len(parts) <= 3:
        return None
    # A camera without a fix writes 0/0, which is NaN.
    if not all(math.isfinite(part) and part >= 0 for part in parts) or any(part > 60 for part in parts[1:]):
        return None
    degrees = sum(part / 60.0**power for power, part in enumerate(parts))
    if degrees > most:
        return None
    return degrees if side == sides[0] or degrees == 0 else -degrees


def _altitude_m(place: Mapping[int, Any]) -> float | None:
    value = float(place[ExifTags.GPS.GPSAltitude])
    if not 0 <= value <= HIGHEST_M:  # nor NaN
        return None
    reference = place.get(ExifTags.GPS.GPSAltitudeRef, 0)
    is_below = (reference[0] if isinstance(reference, bytes) else reference) in BELOW
    return -value if is_below and value else value
