"""Which files are photos: by the suffix of their name or, where that says nothing, by their first bytes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.extras import how_to_install

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
    """The files below a folder, in path order."""

    photos: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """Files that are no photos."""
    heif: list[Path] = field(default_factory=list)
    """Photos that need the `heic` extra, where it is not installed."""

    def report(self, root: Path, say: Say) -> None:
        """Say what is left out; nothing where nothing is."""
        if self.others:
            are = "that is no photo" if len(self.others) == 1 else "that are no photos"
            say(f"{root}: {_counted(self.others, root, 'file')} {are}: left out")
        if self.heif:
            say(
                f"{root}: {_counted(self.heif, root, 'HEIC photo')} left out; to read them, "
                f"{how_to_read_heif()}"
            )


def _counted(paths: Sequence[Path], root: Path, what: str) -> str:
    """`3 files (a.txt, b.xml, c/d.ini)`."""
    names = ", ".join(ascii(path.relative_to(root).as_posix())[1:-1] for path in paths[:LISTED])
    more = f" and {len(paths) - LISTED:,} more" if len(paths) > LISTED else ""
    return f"{len(paths):,} {what}{'s' if len(paths) > 1 else ''} ({names}{more})"


def photos_below(folder: Path) -> Found:
    """All files under a folder. Hidden files and folders are passed over. A broken link counts as a photo by
    its name: it is refused later, by name. Links to folders are followed, but each folder is visited once:
    where it lies, or where the first link to it does.

    Raises:
        DataError: a folder that cannot be read.
    """
    found = Found()
    heif_is_read = reads_heif()

    visited: set[tuple[int, int]] = set()
    links: list[str] = []
    """To folders, which come after all that lie below their own parents."""

    def walk(directory: str) -> None:
        status = os.stat(directory)  # noqa: PTH116 - strings all the way: twice as fast on large folders
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            return
        visited.add(identity)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_folder(entry):
                    if entry.is_symlink():
                        links.append(entry.path)
                    else:
                        walk(entry.path)
                    continue
                kind = _kind_of(entry.name, entry.path)
                if kind == "heif":
                    (found.photos if heif_is_read else found.heif).append(Path(entry.path))
                else:
                    (found.photos if kind == "photo" else found.others).append(Path(entry.path))

    try:
        walk(str(folder))
        while links:
            links.sort(reverse=True)  # the order of entries is the disk's
            walk(links.pop())
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None
    for paths in (found.photos, found.others, found.heif):
        paths.sort()
    return found


def is_photo(path: Path) -> bool:
    """Whether one file is a photo, or would be with the `heic` extra; hidden files are none."""
    return not path.name.startswith(".") and _kind_of(path.name, str(path)) != "other"


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _kind_of(name: str, path: str) -> str:
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
