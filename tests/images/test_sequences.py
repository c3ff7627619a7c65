"""Which photos are of one sequence: against a plain loop, for any gap, number of cameras, and share."""

import contextlib
import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.errors import DataError
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.sequences import NO_TIME, find, in_sequences, numbered, shot_of
from birdsonnx.runtime.audience import NOBODY
from birdsonnx.runtime.ranks import Ranks
from tests.shots import NOON, Base, exif_of, save, taken


def by_hand(times, cameras, gap_us: int) -> list[int]:
    """The oracle: photo after photo, each camera's in the order of their times."""
    groups: list[list[int]] = []
    for camera in dict.fromkeys(cameras):
        before = None
        for time, place in sorted(
            (time, place)
            for place, (time, other) in enumerate(zip(times, cameras, strict=True))
            if other == camera and time is not None
        ):
            if before is None or time - before > gap_us:
                groups.append([])
            groups[-1].append(place)
            before = time
    groups += [[place] for place, time in enumerate(times) if time is None]
    numbers = [0] * len(times)
    for number, group in enumerate(sorted(groups, key=min)):
        for place in group:
            numbers[place] = number
    return numbers


@pytest.mark.parametrize("seed", range(60))
def test_a_plain_loop_finds_the_same(seed):
    chance = random.Random(seed)
    count = chance.choice([0, 1, 2, 5, 40, 300])
    cameras = [chance.randrange(chance.choice([1, 2, 5])) for _ in range(count)]
    times = [
        None if chance.random() < 0.1 else chance.randrange(chance.choice([3, 50, 2000]))
        for _ in range(count)
    ]
    gap_us = chance.choice([0, 1, 2, 10, 3000])
    found = numbered(
        np.array([NO_TIME if time is None else time for time in times], np.int64),
        np.array(cameras, np.int32),
        timedelta(microseconds=gap_us),
    )
    assert found.tolist() == by_hand(times, cameras, gap_us)


def test_times_before_1970_and_far_apart():
    times = np.array([-(10**17), 10**17, NO_TIME, -(10**17), 10**17 + 1], np.int64)
    assert numbered(times, np.zeros(5, np.int32), timedelta(days=1)).tolist() == [0, 1, 2, 0, 1]


# --- Of files -------------------------------------------------------------------------------------------


def shot(name: str, after_s: float | None, model: str = "TrapCam") -> Photo:
    return Photo(save(Image.new("RGB", (8, 8)), name, taken(after_s, model)), name)


def card() -> list[Photo]:
    """Two cameras' photos, in the order of their names."""
    photos = [shot(f"a/{number:02}.jpg", after) for number, after in enumerate([0, 30, 90, 151, 152])]
    photos += [shot(f"b/{number:02}.jpg", after) for number, after in enumerate([0, None, 61, 60, None])]
    Path("b/05.jpg").write_text("no photo")
    return [*photos, Photo(Path("b/05.jpg"), "b/05.jpg"), shot("b/06.jpg", 20, "another")]


@pytest.mark.parametrize(
    ("gap_s", "numbers"),
    [
        (60, [0, 0, 0, 1, 1, 2, 3, 2, 2, 4, 5, 6]),
        (61, [0, 0, 0, 0, 0, 1, 2, 1, 1, 3, 4, 5]),
        (0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_a_gap_is_that_between_two_photos_and_the_end_counts(gap_s, numbers):
    found = find(card(), timedelta(seconds=gap_s), "--option", Ranks(), NOBODY)
    assert found.numbers.tolist() == numbers
    assert (found.without_time, found.count) == (3, max(numbers) + 1)


class Share(Ranks):
    """One of several ranks, whose others have found something already, or nothing yet."""

    def __init__(self, rank: int, size: int, found: list) -> None:
        self.rank, self.size, self.found = rank, size, found

    def everyone(self, value):
        self.found[self.rank] = value
        return [each for each in self.found if each is not None]


@pytest.mark.parametrize("size", [2, 3, 5, 20])
def test_any_number_of_ranks_finds_the_same(size):
    photos = card()
    expected = find(photos, timedelta(seconds=60), "--option", Ranks(), NOBODY)
    shares: list = [None] * size
    for rank in range(size - 1):
        with_others = Share(rank, size, shares)
        with contextlib.suppress(DataError, ValueError):  # not all are here yet
            find(photos, timedelta(seconds=60), "--option", with_others, NOBODY)
    found = find(photos, timedelta(seconds=60), "--option", Share(size - 1, size, shares), NOBODY)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    assert found.without_time == expected.without_time


def test_no_time_at_all_is_refused():
    photos = [shot(f"{number}.jpg", None) for number in range(3)]
    with pytest.raises(DataError, match="--sequence-gap finds no sequences"):
        find(photos, timedelta(seconds=60), "--sequence-gap", Ranks(), NOBODY)


def test_parts_of_seconds_count_and_zones_do_not():
    details = {Base.DateTimeOriginal: "2026:05:04 12:00:00", Base.SubsecTimeOriginal: "75"}
    details[Base.OffsetTimeOriginal] = "+02:00"
    save(Image.new("RGB", (8, 8)), "x/phone.jpg", exif_of({}, details))
    found = shot_of(Photo(Path("x/phone.jpg"), "phone.jpg"))
    assert found is not None
    assert (found.time, found.camera) == (NOON + timedelta(seconds=0.75), ("x", "", "", ""))


def test_groups_are_in_the_order_of_their_first_photos_and_times():
    photos = card()
    shots = [None if photo.name == "b/05.jpg" else shot_of(photo) for photo in photos]
    names = [[photo.name for photo in group] for group in in_sequences(photos, shots)]
    assert names[:3] == [
        ["a/00.jpg", "a/01.jpg", "a/02.jpg"],
        ["a/03.jpg", "a/04.jpg"],
        ["b/00.jpg", "b/03.jpg", "b/02.jpg"],
    ]
    assert names[3:] == [["b/01.jpg"], ["b/04.jpg"], ["b/05.jpg"], ["b/06.jpg"]]
