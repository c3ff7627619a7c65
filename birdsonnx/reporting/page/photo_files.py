"""Where the photos of predictions lie."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from birdsonnx.errors import DataError


def paths_of(names: Sequence[str], folder: Path) -> list[Path | None]:
    """Their files below the folder that was predicted, of boxes those of their photos; None where there are
    none.

    A predictions file may come from anywhere: what it names outside the folder stays outside the page.
    """
    return [_path_of(name, folder) for name in names]


def _path_of(name: str, folder: Path) -> Path | None:
    if ".." in PurePosixPath(name).parts:
        return None
    path = folder / name
    # A box of a detector lies in its photo: `IMG_0001.JPG/0`.
    return next((each for each in (path, path.parent) if each.is_file()), None)


def require_some(names: Sequence[str], folder: Path) -> list[str]:
    """A line about photos that are not in the folder that they are said to be from; none where all are.

    Raises:
        DataError: not one of them is there.
    """
    paths = paths_of(names, folder)
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing and len(missing) == len(names):
        raise DataError(
            f"{folder}: {missing[0]!r} is not there, nor any other of these photos; give the folder that was "
            "predicted"
        )
    if not missing:
        return []
    return [
        f"{folder}: {len(missing):,} of {len(names):,} photos are not there ({missing[0]!r} …): they have no "
        "thumbnails"
    ]
