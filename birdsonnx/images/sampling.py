"""The tutorial's test set: a few random photos of every class, flat, named class + file name."""

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.images.folders import read_class_folders


@dataclass(frozen=True)
class Sample:
    """What was copied."""

    names: list[str]
    in_class_order: bool
    """Whether name order is class order, so that the tutorial's reading loop can compare positions."""


def sample(source: Path, destination: Path, per_class: int, seed: int, tag: str | None = None) -> Sample:
    """Copy `per_class` random photos of each class folder of `source`, or of those below its folders `tag`,
    into the new folder `destination`.

    Raises:
        DataError: `destination` holds something already, a class has too few photos, or two photos would
            get one name.
        ArtifactError: the copy failed; nothing is left of it.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(f"{destination}: exists and is not empty; give a new folder")
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
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for target, (_, path) in chosen.items():
            shutil.copyfile(path, temporary / target)
        if destination.exists():
            destination.rmdir()  # empty: checked above
        temporary.rename(destination)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ArtifactError(f"cannot write {destination}: {error.strerror or error}") from None
    labels = [chosen[target][0] for target in sorted(chosen)]
    return Sample(sorted(chosen), labels == sorted(labels))
