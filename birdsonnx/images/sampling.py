"""The tutorial's test set: a few random photos of every class, flat, named class + file name."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.placing import place, require_place
from birdsonnx.runtime.audience import NOBODY, Audience


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
    audience: Audience = NOBODY,
) -> Sample:
    """Copy `per_class` random photos of each class folder of `source`, or of those below its folders `tag`,
    into `destination`, a folder that is new or empty. A copy is called class + file name; where two would get
    one name, their folders come between.

    Args:
        audience: also gets a line where the file system of `destination` has no locks.

    Raises:
        DataError: `destination` holds something already, a class has too few photos, or two photos would
            get one name all the same.
        ArtifactError: the copy failed, and nothing is left of it; or another run fills the folder.
    """
    require_place(destination, [source])
    with audience.progress("listing the photos"):
        folder = read_class_folders(source, tag)
    generator = random.Random(seed)
    drawn: list[Photo] = []
    for label, name in enumerate(folder.classes):
        photos = [photo for photo in folder.photos if photo.label == label]
        if len(photos) < per_class:
            raise DataError(f"{source / name}: {len(photos)} photos, {per_class} are asked for")
        drawn += generator.sample(photos, per_class)
    chosen = _named(drawn, folder.classes)
    copied = {target: photo.path for target, photo in chosen.items()}
    with audience.progress("copying photos", len(copied)) as advance:
        place(copied, destination, True, audience.say, advance)
    labels = [chosen[target].label or 0 for target in sorted(chosen)]
    return Sample(sorted(chosen), labels == sorted(labels))


def _named(photos: Sequence[Photo], classes: Sequence[str]) -> dict[str, Photo]:
    """What each copy is called. Raises DataError where two keep one name."""
    plain = [classes[photo.label or 0] + photo.path.name for photo in photos]
    times = Counter(plain)
    named: dict[str, Photo] = {}
    for photo, name in zip(photos, plain, strict=True):
        target = name if times[name] == 1 else _with_folders(photo, classes[photo.label or 0])
        if target in named:
            raise DataError(f"{photo.path} and {named[target].path} would both be called {target!r}")
        named[target] = photo
    return named


def _with_folders(photo: Photo, name: str) -> str:
    """`COOT_june_1.jpg` of `COOT/june/1.jpg`."""
    parts = photo.name.split("/")
    parts.remove(name)
    return "_".join((name, *parts))
