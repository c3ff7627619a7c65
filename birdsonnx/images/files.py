"""Which files are photos: by the suffix of their name or, where that says nothing, by their first bytes."""

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.extras import how_to_install
from birdsonnx.images.photo_list import Files
from birdsonnx.images.walking import Kind, Listed, walk
from birdsonnx.runtime.audience import Advance

Say = Callable[[str], None]

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".apng", ".gif", ".bmp", ".webp", ".avif", ".avifs"),
        *(".tif", ".tiff", ".pbm", ".pgm", ".pnm", ".ppm"),
    )
)
"""Of the formats that are decoded (`photo_file.FORMATS`)."""

HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))

HEAD = 16
"""Bytes that tell the formats below apart."""

LISTED = 3
"""Files named in one line."""


def is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIC does, the photos of Apple's phones. Brands: ISO/IEC 23008-12, annex B."""
    return head[4:8] == b"ftyp" and head[8:12] in (
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
        *(b"mif1", b"msf1"),
    )


def is_photo_by_content(head: bytes) -> bool:
    """Whether a file begins as a photo does, whatever its name is.

    TIFF does not count: the raw files of cameras begin like it, and hold small previews. BMP and PPM do not
    either: two letters prove nothing.
    """
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
    )


def how_to_read_heif() -> str:
    """What to do about photos that `reads_heif` says no to."""
    return f"{how_to_install('heic')}, or save them as JPEG"


def reads_heif() -> bool:
    """Whether the `heic` extra is installed."""
    import importlib.util

    return importlib.util.find_spec("pillow_heif") is not None


@dataclass
class Found:
    """The files below a folder."""

    root: Path
    folders: list[Listed]
    heif_is_read: bool
    """Whether HEIC photos count as photos; else the `heic` extra is missing."""

    def __len__(self) -> int:
        """Of photos."""
        return sum(files.count for _, files in self.photos())

    def photos(self) -> Iterator[tuple[Listed, Files]]:
        """Each folder with its photos."""
        for each in self.folders:
            yield each, each.photos
            if self.heif_is_read:
                yield each, each.heif

    @property
    def heif(self) -> int:
        """Photos that need the `heic` extra, where it is not installed."""
        return 0 if self.heif_is_read else sum(each.heif.count for each in self.folders)

    def report(self, say: Say) -> None:
        """Say what is left out; nothing where nothing is."""
        others = [(each.place.parts, each.others) for each in self.folders if each.others.count]
        if others:
            count = sum(files.count for _, files in others)
            are = "that is no photo" if count == 1 else "that are no photos"
            say(f"{self.root}: {_counted(others, count, 'file')} {are}: left out")
        if self.heif:
            heif = [(each.place.parts, each.heif) for each in self.folders if each.heif.count]
            say(
                f"{self.root}: {_counted(heif, self.heif, 'HEIC photo')} left out; to read them, "
                f"{how_to_read_heif()}"
            )


def _counted(files: Sequence[tuple[tuple[str, ...], Files]], count: int, what: str) -> str:
    """`3 files (a.txt, b.xml, c/d.ini)`."""
    paths = ((*parts, name) for parts, each in files for name in each.names()[:LISTED])
    names = ", ".join(ascii("/".join(path))[1:-1] for path in heapq.nsmallest(LISTED, paths))
    more = f" and {count - LISTED:,} more" if count > LISTED else ""
    return f"{count:,} {what}{'s' if count > 1 else ''} ({names}{more})"


def photos_below(folder: Path, advance: Advance = lambda _: None) -> Found:
    """All files under a folder. Hidden files and folders are passed over. A broken link counts as a photo by
    its name: it is refused later, by name. Links to folders are followed, but each folder is visited once:
    where it lies, or where the first link to it does.

    Args:
        advance: is told of photos as they are found.

    Raises:
        DataError: a folder that cannot be read.
    """
    try:
        return Found(folder, walk(str(folder), _kind_of, advance), reads_heif())
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None


def is_photo(path: Path) -> bool:
    """Whether one file is a photo, or would be with the `heic` extra; hidden files are none."""
    return not path.name.startswith(".") and _kind_of(path.name, str(path)) != "other"


def _kind_of(name: str, path: str) -> Kind:
    """`photo`, `heif` or `other`."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a string, for a million names
    if suffix in SUFFIXES:
        return "photo"
    if suffix in HEIF_SUFFIXES:
        return "heif"
    head = _head_of(path)
    return "heif" if is_heif(head) else "photo" if is_photo_by_content(head) else "other"


def _head_of(path: str) -> bytes:
    """The first bytes of a regular file, or nothing where there are none to read."""
    if not os.path.isfile(path):  # noqa: PTH113 - a FIFO would wait for a writer
        return b""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(HEAD)
    except OSError:
        return b""
