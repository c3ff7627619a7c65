"""The photos to name: files, folders and glob patterns, and the name that each photo gets in results."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from birdsonnx.config.wording import nearest_path
from birdsonnx.errors import DataError
from birdsonnx.images.files import Say, how_to_read_heif, is_photo, photos_below
from birdsonnx.images.folders import Photo, below_tag


def collect(inputs: Iterable[str], tag: str | None = None, say: Say = lambda _: None) -> list[Photo]:
    """Photos to name, from files, folders (walked) and glob patterns, in name order.

    A photo's name is its path relative to the folder that was given, to a pattern's last folder without
    wildcards, or just its file name where the file itself was given. Where two would get one name, as
    IMG_0001.JPG of two camera folders, all names are the paths relative to the deepest folder that holds
    every photo, which `say` is told. With a tag, of a folder only the photos in folders of that name. What a
    folder holds beside photos is left out, and reported to `say`.

    Raises:
        DataError: an input that does not exist or holds no photos, or a photo that is given twice.
    """
    photos: list[Photo] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            below = photos_below(path)
            files = below.photos
            if not files:
                unread = f"; of its {len(below.heif)} HEIC photos: {how_to_read_heif()}" if below.heif else ""
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
            raise DataError(f"{given}: no such file or folder{nearest_path(path)}")
        photos += found
    if not photos:
        raise DataError("no photos to name; give files, folders or glob patterns")
    photos.sort(key=lambda photo: photo.name)
    collision = _collision(photos)
    if collision is None:
        return photos
    photos = _with_folders(photos)
    remaining = _collision(photos)
    if remaining is not None:
        raise DataError(remaining)
    say(f"{collision}: names begin with their folders, such as {photos[0].name!r}")
    return photos


def named_by(given: str) -> list[Path]:
    """The files and folders that one input names."""
    if os.path.lexists(given) or not glob.has_magic(given):
        return [Path(given)]
    return [Path(match) for match in glob.glob(given, recursive=True)]  # noqa: PTH207 - may be absolute


def _matching(pattern: str) -> Iterator[Photo]:
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - a pattern may be absolute
        path = Path(match)
        files = photos_below(path).photos if path.is_dir() else [path] if is_photo(path) else []
        for file in files:
            yield Photo(file, file.relative_to(fixed).as_posix())


def _collision(photos: Sequence[Photo]) -> str | None:
    """Why photos cannot lie in one file of results under their names; None where they can."""
    names: dict[str, Path] = {}
    for photo in photos:
        other = names.setdefault(photo.name, photo.path)
        if other is not photo.path:
            if absolute(other) == absolute(photo.path):
                return f"{photo.path} is given twice"
            return f"{other} and {photo.path} would both be called {photo.name!r}"
    for photo in photos:
        for parent in Path(photo.name).parents:
            if parent.as_posix() in names:
                return (
                    f"{names[parent.as_posix()]} and {photo.path} cannot lie in one file: "
                    f"{parent.as_posix()!r} would be both a photo and a folder"
                )
    return None


def _with_folders(photos: Sequence[Photo]) -> list[Photo]:
    """The photos, named by their paths relative to the deepest folder that holds all of them."""
    paths = [absolute(photo.path) for photo in photos]
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:  # on Windows: several drives
        return list(photos)
    named = [
        Photo(photo.path, Path(path).relative_to(root).as_posix())
        for photo, path in zip(photos, paths, strict=True)
    ]
    return sorted(named, key=lambda photo: photo.name)


def absolute(path: Path) -> str:
    """Where a path leads, without a look at the disk."""
    return os.path.abspath(path)  # noqa: PTH100 - links stay distinct photos
