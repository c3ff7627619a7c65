"""Where the training and the test set lie below one folder, by the names that such folders have."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from birdsonnx.config.proposed import Sets
from birdsonnx.config.wording import nearest_path
from birdsonnx.errors import DataError
from birdsonnx.images.files import photos_below

TRAINING = ("train", "training", "trainval")
VALIDATION = ("valid", "validation", "val", "eval", "dev", "holdout")
TEST = ("test", "testing")
"""What people call the folders that hold the class folders of a set, in small letters, likeliest first."""
DURING_TRAINING = VALIDATION + TEST
"""What the epochs are tested on; the test set only where there is nothing else."""
DEPTH = 2
"""Folders below a set's at the least: a class and its photos."""


def find(data: Path) -> Sets:
    """The sets below `data`: `data/train/<class>/…` and `data/valid/<class>/…`; or `data/…/train/<class>/…`,
    which tags name. Without any of `DURING_TRAINING` there is no test set.

    Raises:
        DataError: no such folder, or no training set in it; says what to do instead.
    """
    if not data.is_dir():
        if data.exists():
            raise DataError(f"{data}: this is a file; a folder is needed")
        raise DataError(f"{data}: there is no such folder{nearest_path(data)}")
    paths = [listed.place.parts for listed, files in photos_below(data).photos() if files.count]
    beside = {parts[0] for parts in paths if len(parts) >= DEPTH}
    train = _first(TRAINING, beside)
    if train is not None:
        test = _first(DURING_TRAINING, beside)
        return Sets(data / train, None if test is None else data / test)
    deeper = {part for parts in paths for part in parts[1:-1]}
    train = _first(TRAINING, deeper)
    if train is not None:
        return Sets(data, training_tag=train, test_tag=_first(DURING_TRAINING, deeper))
    raise DataError(_nothing_to_train_on(data, paths))


def _first(names: Sequence[str], present: Iterable[str]) -> str | None:
    """The folder that has the first of the names, in any case."""
    by_lower = {name.lower(): name for name in sorted(present, reverse=True)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _nothing_to_train_on(data: Path, paths: Sequence[tuple[str, ...]]) -> str:
    """What is there instead, and what to do with it."""
    classes = sorted({parts[0] for parts in paths if parts})
    if not classes:
        return (
            f"{data}: no photos in class folders below it; expected {data}/train/<class name>/<photo>.jpg "
            f"and {data}/valid/<class name>/<photo>.jpg"
        )
    place = data.resolve()
    if place.name.lower() in (*TRAINING, *DURING_TRAINING) and _first(TRAINING, _folders(place.parent)):
        above = data.parent if data.name else place.parent
        return (
            f"{data}: this is one set; name the folder that holds train and valid: "
            f"birdsonnx train --data {shlex.quote(str(above))}"
        )
    there = ", ".join(classes[:3]) + (" …" if len(classes) > 3 else "")
    apart = shlex.quote(f"{data}_sets")
    return (
        f"{data}: no folder train in it, but class folders ({there}); make train, valid and test of them, "
        f"then train on those: birdsonnx split {shlex.quote(str(data))} {apart} && birdsonnx train --data "
        f"{apart}"
    )


def _folders(place: Path) -> list[str]:
    return [each.name for each in place.iterdir() if each.is_dir()]
