"""Species folders become train, valid and test: class by class, by chance from a seed."""

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from birdsonnx.errors import ConfigError, DataError, ImageError
from birdsonnx.images import sets
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.folders import LabelledFolder, read_class_folders
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.placing import place, require_place
from birdsonnx.images.sequences import Shot, in_sequences, shot_of
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.sessions import in_streams
from birdsonnx.runtime.threads import available_cores

TRAIN, VALID, TEST = "train", "valid", "test"

CHECKED = 32
"""Pixels a side that a photo is decoded to, to see that it can be."""


@dataclass(frozen=True)
class Request:
    """What to split, where to, and how."""

    source: Path
    destination: Path
    valid: float = 0.15
    test: float = 0.15
    """Shares of each class's photos; the others are for training."""
    seed: int = 0
    copies: bool = False
    """Whether to copy the photos rather than link to them."""
    keep_sequences: bool = False
    """Whether photos of one camera, taken shortly after each other, stay in one set."""

    def shares(self) -> dict[str, Fraction]:
        """Of each set that there is to be. Raises ConfigError where they leave nothing for training, or take
        nothing from it."""
        given = {name: share for name, share in ((VALID, self.valid), (TEST, self.test)) if share != 0}
        if not given or not all(0 < share < 1 for share in given.values()) or sum(given.values()) >= 1:
            raise ConfigError(
                f"--valid {self.valid:g} and --test {self.test:g}: give shares from 0 to below 1, one of "
                "them above 0, that leave photos for training"
            )
        # Decimal, as they were given: 0.15 of 20 photos are 3.
        shares = {name: Fraction(str(share)) for name, share in given.items()}
        return {TRAIN: 1 - sum(shares.values(), Fraction()), **shares}


@dataclass(frozen=True)
class Split:
    """What became of the photos."""

    counts: dict[str, dict[str, int]]
    """Photos of each class in each set."""
    sequences: int | None
    """Groups that were kept together; None: each photo was by itself."""
    without_time: int
    """Photos of which no time is known, each by itself."""
    refused: list[str]
    """Why each photo that cannot be used is left out."""

    @property
    def photos(self) -> dict[str, int]:
        """Of each set."""
        total: Counter[str] = Counter()
        for counts in self.counts.values():
            total.update(counts)
        return dict(total)

    @property
    def lacking(self) -> dict[str, list[str]]:
        """The classes that had too few photos for every set, and the sets that have none of theirs."""
        return {
            name: [each for each, count in counts.items() if not count]
            for name, counts in self.counts.items()
            if not all(counts.values())
        }


def split(request: Request, audience: Audience) -> Split:
    """Put the photos of `source/<class>/…` into `destination/<set>/<class>/…`; folders below a class stay.

    Raises:
        ConfigError: shares that make no sets.
        DataError: a destination that is not new or empty, or lies in the source; folders that are no class
            folders, or are split already; a class without one photo that can be used; `keep_sequences` where
            no photo says when it was taken.
        ArtifactError: the destination cannot be written; nothing is left of it then.
    """
    shares = request.shares()
    require_place(request.destination, [request.source])
    _require_unsplit(request.source)
    folder = read_class_folders(request.source, say=audience.say)
    shots, refused = _looked_at(folder.photos, request.keep_sequences, audience)
    _require_some_of_each(folder, shots, refused)
    known = sum(shot is not None for shot in shots.values())
    if request.keep_sequences and not known:
        raise DataError(
            f"{request.source}: no photo says when it was taken (EXIF's DateTimeOriginal), so that "
            "--keep-sequences finds no sequences; leave it out"
        )
    placed: dict[str, Path] = {}
    counts: dict[str, dict[str, int]] = {}
    sequences = 0
    of_class: list[list[Photo]] = [[] for _ in folder.classes]
    for photo in folder.photos:
        if photo.path in shots and photo.label is not None:
            of_class[photo.label].append(photo)
    for name, photos in zip(folder.classes, of_class, strict=True):
        groups = in_sequences(photos, [shots[photo.path] for photo in photos])
        parted = shared_out(groups, shares, random.Random(f"{request.seed}/{name}"))
        counts[name] = {each: len(members) for each, members in parted.items()}
        sequences += len(groups)
        placed |= {f"{each}/{photo.name}": photo.path for each in parted for photo in parted[each]}
    with audience.progress("placing", len(placed)) as advance:
        place(placed, request.destination, request.copies, audience.say, advance)
    kept = sequences if request.keep_sequences else None
    return Split(counts, kept, len(shots) - known if request.keep_sequences else 0, refused)


def shared_out(
    groups: Sequence[Sequence[Photo]], shares: dict[str, Fraction], chance: random.Random
) -> dict[str, list[Photo]]:
    """One class's photos in sets. The largest groups come first, and each goes to the set that lacks most;
    where no more are left than there are empty sets, to those, training first. Groups of one photo each give
    every set its share, rounded up or down."""
    shuffled = list(groups)
    chance.shuffle(shuffled)
    shuffled.sort(key=len, reverse=True)
    lacks = {name: share * sum(map(len, groups)) for name, share in shares.items()}
    parted: dict[str, list[Photo]] = {name: [] for name in shares}
    for number, group in enumerate(shuffled):
        empty = [name for name in parted if not parted[name]]
        if len(shuffled) - number > len(empty):
            chosen = max(lacks, key=lambda name: lacks[name])
        else:
            chosen = TRAIN if TRAIN in empty else max(empty, key=lambda name: lacks[name])
        parted[chosen] += group
        lacks[chosen] -= len(group)
    return parted


def _require_unsplit(source: Path) -> None:
    """Raises DataError where there is a training set already."""
    try:
        found = sets.find(source)
    except DataError:  # none, as it should be; or no folder, which is said where it is read
        return
    place = f"folders {found.training_tag!r}" if found.training_tag else str(found.input_path)
    raise DataError(
        f"{source}: is split already ({place}); to split it in another way, give a folder that holds all "
        "photos of a class in one folder"
    )


def _looked_at(
    photos: Sequence[Photo], with_times: bool, audience: Audience
) -> tuple[dict[Path, Shot | None], list[str]]:
    """When each photo was taken, where that is asked for, of those that training could read; why not the
    others."""
    decode = decoder(CHECKED, CHECKED, 3, None)
    shots: dict[Path, Shot | None] = {}
    refused = []

    def look(photo: Photo) -> Shot | ImageError | None:
        return _look(photo, decode, with_times)

    looking = in_streams(len(available_cores()), look, photos, ahead=8)
    with audience.progress("photos", len(photos)) as advance, closing(looking):
        for photo, found in zip(photos, looking, strict=True):
            advance(1)
            if isinstance(found, ImageError):
                refused.append(str(found))
            else:
                shots[photo.path] = found
    return shots, refused


def _look(photo: Photo, decode: Decoder, with_times: bool) -> Shot | ImageError | None:
    try:
        decode(photo.path)
        return shot_of(photo) if with_times else None
    except ImageError as error:
        return error


def _require_some_of_each(
    folder: LabelledFolder, usable: dict[Path, Shot | None], refused: Sequence[str]
) -> None:
    left = {photo.label for photo in folder.photos if photo.path in usable}
    for label, name in enumerate(folder.classes):
        if label not in left:
            raise DataError(f"{folder.root / name}: not one of its photos can be used:", refused)
