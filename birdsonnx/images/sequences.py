"""Photos that one camera took shortly after each other: by the time and the camera in their EXIF data."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import DataError, ImageError
from birdsonnx.images.exif import header_of
from birdsonnx.images.photo_list import Photo
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import in_streams, slices
from birdsonnx.runtime.threads import available_cores

GAP = timedelta(minutes=1)
"""A photo taken so long after the one before, or sooner, belongs to its sequence: camera traps take a few
photos of each visit within seconds."""

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1)
NO_TIME = np.iinfo(np.int64).min

HEADERS_AT_ONCE = 64
"""Photos whose headers a thread reads before it hands them over."""


@dataclass(frozen=True)
class Shot:
    """When a photo was taken, and by which camera."""

    time: datetime
    """By the camera's clock, without a zone."""
    camera: tuple[str, ...]
    """The folder of the photo, and what EXIF says of the camera: two of one model have a folder each."""


@dataclass(frozen=True)
class Sequences:
    """Which photos of a list belong together."""

    numbers: npt.NDArray[np.int64]
    """Of each photo its sequence, int64 `[photos]`, counted from 0 in the order of their first photos."""
    without_time: int
    """Photos of which no time is known, each a sequence by itself."""

    @property
    def count(self) -> int:
        return int(self.numbers.max()) + 1


def shot_of(photo: Photo) -> Shot | None:
    """When and by which camera a photo was taken; None where the file does not say. Raises ImageError."""
    header = header_of(photo.path)
    if header.time is None:
        return None
    # Not that of its name: where several folders are given, names begin with them only if they must.
    folder = str(photo.path.parent)
    return Shot(header.time.replace(tzinfo=None), (folder, header.make, header.model, header.serial))


def in_sequences(
    photos: Sequence[Photo], shots: Sequence[Shot | None], gap: timedelta = GAP
) -> list[list[Photo]]:
    """The photos in groups: those of one camera, each taken within `gap` of the one before, are one; a photo
    whose time is not known is one alone. In the order of their first photos."""
    times, cameras = _columns(shots, {})
    numbers = numbered(times, cameras, gap)
    groups: dict[int, list[Photo]] = {}
    for place in np.lexsort((np.arange(len(photos)), times, numbers)).tolist():
        groups.setdefault(int(numbers[place]), []).append(photos[place])
    return list(groups.values())


def find(photos: Sequence[Photo], gap: timedelta, option: str, ranks: Ranks, audience: Audience) -> Sequences:
    """The sequences of photos; every rank calls this, and reads its share of their headers.

    A photo that cannot be read has no time: whoever decodes it says why.

    Args:
        option: who asks, for messages.

    Raises:
        DataError: no photo says when it was taken.
    """
    share = ranks.share(len(photos))
    cameras: dict[tuple[str, ...], int] = {}
    times = np.full(len(share), NO_TIME)
    takers = np.zeros(len(share), np.int32)
    looking = in_streams(
        len(available_cores()),
        lambda piece: [_looked_at(photos[index]) for index in piece],
        slices(share, HEADERS_AT_ONCE),
        ahead=4,
    )
    done = 0
    with audience.progress("reading when the photos were taken", len(share)) as advance, closing(looking):
        for shots in looking:
            piece = slice(done, done + len(shots))
            times[piece], takers[piece] = _columns(shots, cameras)
            done += len(shots)
            advance(len(shots))
    # Numbers, not objects, go to the others: 12 bytes a photo.
    all_cameras: dict[tuple[str, ...], int] = {}
    columns = []
    for its_times, its_takers, its_cameras in ranks.everyone((times, takers, list(cameras))):
        known = [all_cameras.setdefault(camera, len(all_cameras)) for camera in its_cameras]
        columns.append((its_times, np.array(known or [0], np.int32)[its_takers]))
    times, takers = (np.concatenate(column) for column in zip(*columns, strict=True))
    without_time = int((times == NO_TIME).sum())
    ranks.first(lambda: _require_times(len(photos) - without_time, option))
    return Sequences(numbered(times, takers, gap), without_time)


def numbered(
    times: npt.NDArray[np.int64], cameras: npt.NDArray[np.int32], gap: timedelta
) -> npt.NDArray[np.int64]:
    """The sequence of each photo, int64 `[photos]`, counted from 0 in the order of their first photos.

    Args:
        times: microseconds, int64 `[photos]`; `NO_TIME` where it is not known.
        cameras: int32 `[photos]`.
        gap: a photo of one camera so long after the one before, or sooner, belongs to its sequence.
    """
    if not times.size:
        return np.zeros(0, np.int64)
    order = np.lexsort((np.arange(times.size), times, cameras))
    ordered = times[order]
    begins = np.ones(times.size, bool)
    with np.errstate(over="ignore"):  # after a photo without a time, where one begins anyway
        begins[1:] = (np.diff(ordered) > gap // MICROSECOND) | (np.diff(cameras[order]) != 0)
    begins |= ordered == NO_TIME
    begins[1:] |= ordered[:-1] == NO_TIME
    first = np.minimum.reduceat(order, np.flatnonzero(begins))
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    numbers = np.empty(times.size, np.int64)
    numbers[order] = rank[np.cumsum(begins) - 1]
    return numbers


def _looked_at(photo: Photo) -> Shot | None:
    try:
        return shot_of(photo)
    except ImageError:
        return None


def _columns(
    shots: Sequence[Shot | None], cameras: dict[tuple[str, ...], int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Times and cameras of some photos as numbers; cameras that are not in `cameras` are put there."""
    times = [NO_TIME if shot is None else (shot.time - EPOCH) // MICROSECOND for shot in shots]
    takers = [0 if shot is None else cameras.setdefault(shot.camera, len(cameras)) for shot in shots]
    return np.array(times, np.int64), np.array(takers, np.int32)


def _require_times(known: int, option: str) -> None:
    if not known:
        raise DataError(
            "no photo says when it was taken (EXIF's DateTimeOriginal), so that "
            f"{option} finds no sequences; leave it out"
        )
