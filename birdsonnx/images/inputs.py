"""The photos to name: files, folders and glob patterns, and the name that each photo gets in results."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from birdsonnx.config.wording import nearest_path
from birdsonnx.errors import DataError
from birdsonnx.images.files import Say, how_to_read_heif, is_photo, photos_below
from birdsonnx.images.folders import before, below_tag, folder_of
from birdsonnx.images.photo_list import Files, Folder, PhotoList
from birdsonnx.runtime.audience import Advance


def collect(
    inputs: Iterable[str],
    tag: str | None = None,
    say: Say = lambda _: None,
    advance: Advance = lambda _: None,
) -> PhotoList:
    """Photos to name, from files, folders (walked) and glob patterns, in name order.

    A photo's name is its path relative to the folder that was given, to a pattern's last folder without
    wildcards, or just its file name where the file itself was given. Where two would get one name, as
    IMG_0001.JPG of two camera folders, all names are the paths relative to the deepest folder that holds
    every photo, which `say` is told. With a tag, of a folder only the photos in folders of that name. What a
    folder holds beside photos is left out, and reported to `say`. `advance` is told of photos as they are
    found.

    Raises:
        DataError: an input that does not exist or holds no photos, or a photo that is given twice.
    """
    parts: list[tuple[Folder, Files]] = []
    single = _Files()
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            below = photos_below(path, advance)
            if not len(below):
                unread = f"; of its {below.heif} HEIC photos: {how_to_read_heif()}" if below.heif else ""
                raise DataError(f"{given}: no photos in this folder{unread}")
            below.report(say)
            found = list(below.photos())
            if tag is not None:
                found = [(listed, files) for listed, files, _ in below_tag(path, found, tag)]
            parts += [(folder_of(path, listed), files) for listed, files in found]
        elif tag is not None:
            raise DataError(f"{given}: photos in folders called {tag!r} are asked for, but this is no folder")
        elif os.path.lexists(path):
            single.add(path, "")
        elif glob.has_magic(given):
            matching = list(_matching(given, advance))
            if not matching:
                raise DataError(f"{given}: no photo matches this pattern")
            parts += matching
        else:
            raise DataError(f"{given}: no such file or folder{nearest_path(path)}")
    parts += single.parts()
    if not parts:
        raise DataError("no photos to name; give files, folders or glob patterns")
    photos = PhotoList.in_order(parts)
    collision = _collision(photos)
    if collision is None:
        return photos
    photos = _with_folders(photos)
    remaining = _collision(photos)
    if remaining is not None:
        raise DataError(remaining)
    say(f"{collision}: names begin with their folders, such as {photos[0].name!r}")
    return photos


class _Files:
    """Files that are given one by one, brought together by their folders."""

    def __init__(self) -> None:
        self._names: dict[Folder, list[str]] = {}

    def add(self, path: Path, title: str) -> None:
        folder, file = os.path.split(path)
        self._names.setdefault(Folder(before(folder), title), []).append(file)

    def parts(self) -> list[tuple[Folder, Files]]:
        return [(folder, Files.of(names)) for folder, names in self._names.items()]


def named_by(given: str) -> list[Path]:
    """The files and folders that one input names."""
    if os.path.lexists(given) or not glob.has_magic(given):
        return [Path(given)]
    return [Path(match) for match in glob.glob(given, recursive=True)]  # noqa: PTH207 - may be absolute


def _matching(pattern: str, advance: Advance) -> Iterator[tuple[Folder, Files]]:
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent

    def title(folder: Path) -> str:
        below = folder.relative_to(fixed).as_posix()
        return "" if below == "." else f"{below}/"

    single = _Files()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - a pattern may be absolute
        path = Path(match)
        if path.is_dir():
            for listed, files in photos_below(path, advance).photos():
                if files.count:
                    folder = folder_of(path, listed)
                    yield Folder(folder.place, title(path) + folder.title), files
        elif is_photo(path):
            single.add(path, title(path.parent))
    yield from single.parts()


def _collision(photos: PhotoList) -> str | None:
    """Why photos, in the order of their names, cannot lie in one file of results under these; None where they
    can."""
    for place, (name, other) in enumerate(pairwise(photos.names())):
        if name == other:
            first, second = photos[place].path, photos[place + 1].path
            if absolute(first) == absolute(second):
                return f"{second} is given twice"
            return f"{first} and {second} would both be called {name!r}"
    folders = {above for each in photos.folders for above in _above(each.title)}
    if folders.isdisjoint(photos.names()):
        return None
    paths = {photo.name: photo.path for photo in photos if photo.name in folders}
    for photo in photos:
        for parent in _above(photo.name):
            if parent in paths:
                return (
                    f"{paths[parent]} and {photo.path} cannot lie in one file: "
                    f"{parent!r} would be both a photo and a folder"
                )
    return None


def _above(name: str) -> Iterator[str]:
    """The folders that a name lies in: of `a/b/c` `a/b` and `a`."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _with_folders(photos: PhotoList) -> PhotoList:
    """The photos, named by their paths relative to the deepest folder that holds all of them."""
    try:
        root = os.path.commonpath([absolute(Path(folder.place)) for folder in photos.folders])
    except ValueError:  # on Windows: several drives
        return photos

    def renamed(folder: Folder) -> Folder:
        below = Path(absolute(Path(folder.place))).relative_to(root).as_posix()
        return replace(folder, title="" if below == "." else f"{below}/")

    return photos.with_folders(renamed).ordered()


def absolute(path: Path) -> str:
    """Where a path leads, without a look at the disk."""
    return os.path.abspath(path)  # noqa: PTH100 - links stay distinct photos
