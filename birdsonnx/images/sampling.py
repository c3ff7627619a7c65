"""The tutorial's test set: a few random photos of every class, flat, named class + file name."""

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.artifacts import locks
from birdsonnx.artifacts import temporary as temporary_names
from birdsonnx.errors import DataError
from birdsonnx.images.folders import read_class_folders


@dataclass(frozen=True)
class Sample:
    """What was copied."""

    names: list[str]
    in_class_order: bool
    """Whether name order is class order, so that the tutorial's reading loop can compare positions."""


def sample(
    source: Path,
    destination: Path,
    per_class: int,
    seed: int,
    tag: str | None = None,
    say: Callable[[str], None] = print,
) -> Sample:
    """Copy `per_class` random photos of each class folder of `source`, or of those below its folders `tag`,
    into `destination`, a folder that is new or empty.

    Args:
        say: takes a line where the file system of `destination` has no locks.

    Raises:
        DataError: `destination` holds something already, a class has too few photos, or two photos would
            get one name.
        ArtifactError: the copy failed, and nothing is left of it; or another run fills the folder.
    """
    artifacts.require_new_or_empty(destination)
    folder = read_class_folders(source, tag)
    generator = random.Random(seed)
    chosen: dict[str, tuple[int, Path]] = {}
    for label, name in enumerate(folder.classes):
        photos = [photo for photo in folder.photos if photo.label == label]
        if len(photos) < per_class:
            raise DataError(f"{source / name}: {len(photos)} photos, {per_class} are asked for")
        for photo in generator.sample(photos, per_class):
            target = name + photo.path.name
            if target in chosen:
                raise DataError(f"{photo.path} and {chosen[target][1]} would both be called {target!r}")
            chosen[target] = (label, photo.path)
    _copy({target: path for target, (_, path) in chosen.items()}, destination, say)
    labels = [chosen[target][0] for target in sorted(chosen)]
    return Sample(sorted(chosen), labels == sorted(labels))


def _copy(photos: dict[str, Path], destination: Path, say: Callable[[str], None]) -> None:
    """Copy photos to their new names: into a temporary folder, then all at once.

    A new folder is renamed as a whole. One that is there stays the same folder, since it may be the one that
    a shell is in, a link, or a disk of its own; no other run fills it meanwhile.
    """
    there = destination.exists()
    name = temporary_names.name_for(artifacts.sha256_of(os.fsencode(destination.name))[:16])
    temporary = destination / name if there else destination.with_name(name)
    with contextlib.ExitStack() as stack:
        if there:
            stack.enter_context(locks.sole_writer_in(destination, say))
            artifacts.require_new_or_empty(destination)  # another may have filled it just now
        temporary_names.remove_litter(temporary.parent)
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        with artifacts.naming(destination):
            temporary.mkdir(parents=True)
            for target, path in photos.items():
                shutil.copyfile(path, temporary / target)
            if there:
                _move(temporary, destination, photos)
            else:
                temporary.rename(destination)


def _move(source: Path, destination: Path, names: Collection[str]) -> None:
    """Move files into an empty folder, all of them or none. Raises OSError."""
    try:
        for name in names:
            (source / name).rename(destination / name)
    except BaseException:  # a signal too
        for name in names:
            (destination / name).unlink(missing_ok=True)
        raise
