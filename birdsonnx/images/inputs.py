"""The photos to name: files, folders and glob patterns, and the name that each photo gets in results."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.images.files import HOW_TO_READ_HEIF, Say, is_photo, photos_below
from birdsonnx.images.folders import Photo, below_tag


def collect(inputs: Iterable[str], tag: str | None = None, say: Say = lambda _: None) -> list[Photo]:
    """Photos to name, from files, folders (walked) and glob patterns, in name order.

    A photo's name is its path relative to the folder that was given, to a pattern's last folder without
    wildcards, or just its file name where the file itself was given. With a tag, of a folder only the photos
    in folders of that name. What a folder holds beside photos is left out, and reported to `say`.

    Raises:
        DataError: an input that does not exist or holds no photos, or two photos that get one name.
    """
    photos: list[Photo] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            below = photos_below(path)
            files = below.photos
            if not files:
                unread = f"; of its {len(below.heif)} HEIC photos: {HOW_TO_READ_HEIF}" if below.heif else ""
                raise DataError(f"{given}: no photos in this folder{unread}")
            below.report(path, say)
            if tag is not None:
                files = [file for file, _ in below_tag(path, files, tag)]
            found = [Photo(file, file.relative_to(path).as_posix()) for file in files]
        elif tag is not None:
            raise DataError(f"{given}: photos in folders called {tag!r} are asked for, but this is no folder")
        elif os.path.lexists(path):
            found = [Photo(path, path.name)]
        elif glob.has_magic(given):
            found = list(_matching(given))
            if not found:
                raise DataError(f"{given}: no photo matches this pattern")
        else:
            raise DataError(f"{given}: no such file or folder")
        photos += found
    if not photos:
        raise DataError("no photos to name; give files, folders or glob patterns")
    photos.sort(key=lambda photo: photo.name)
    _require_distinct(photos)
    return photos


def _matching(pattern: str) -> Iterator[Photo]:
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - a pattern may be absolute
        path = Path(match)
        files = photos_below(path).photos if path.is_dir() else [path] if is_photo(path) else []
        for file in files:
            yield Photo(file, file.relative_to(fixed).as_posix())


def _require_distinct(photos: Sequence[Photo]) -> None:
    names: dict[str, Path] = {}
    for photo in photos:
        if photo.name in names and not _same_path(names[photo.name], photo.path):
            raise DataError(
                f"{names[photo.name]} and {photo.path} would both be called {photo.name!r}; "
                "give the folder above them, or predict them one after the other"
            )
        if photo.name in names:
            raise DataError(f"{photo.path} is given twice")
        names[photo.name] = photo.path
    for photo in photos:
        for parent in Path(photo.name).parents:
            if parent.as_posix() in names:
                raise DataError(
                    f"{names[parent.as_posix()]} and {photo.path} cannot lie in one file: "
                    f"{parent.as_posix()!r} would be both a photo and a folder; predict them separately"
                )


def _same_path(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100 - links stay distinct photos
