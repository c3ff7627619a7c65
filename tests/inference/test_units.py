"""Units handed out to ranks of any speed: everything once, in order, within bounds; nobody waits for long."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdsonnx.images.crops import Box, Crop
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference import units
from birdsonnx.inference.forward import Chunk
from birdsonnx.inference.units import Pieces, Units
from birdsonnx.runtime.ranks import Ranks

WIDTH = 400


def photos(count: int) -> list[Photo]:
    return [Photo(Path(f"{number}"), f"{number}") for number in range(count)]


def crops(boxes: list[int]) -> list[Photo]:
    box = Box(0, 0, 1, 1)
    return [
        Crop(Path(f"{number}"), f"{number}/{each}", box=box)
        for number, count in enumerate(boxes)
        for each in range(count)
    ]


def of_size(size: int) -> Ranks:
    ranks = Ranks()
    ranks.size = size
    return ranks


def positions_of(piece: object) -> list[int]:
    assert isinstance(piece, range | list)
    return [index for each in piece for index in (each if isinstance(each, range) else [each])]


def run(piece: object) -> Chunk:
    indices = tuple(positions_of(piece))
    return Chunk(indices, np.array(indices, np.float32)[:, None], ())


@given(st.integers(0, 300), st.integers(1, 70), st.integers(1, 5), st.sets(st.integers(0, 40)))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_every_photo_once_and_none_that_is_known(count, per_run, size, known):
    pieces = Pieces(photos(count), per_run)
    before = {start: range(start, start + 1) for start in sorted(known) if start < len(pieces)}
    handing = Units(pieces, run, 2, WIDTH, of_size(size), before, lambda *_: None)
    seen = [number for start in before for number in before[start]]
    while (unit := handing.take(0)) is not None:
        assert handing.may_take(0)
        assert len(unit)
        seen += unit
    assert sorted(seen) == list(range(len(pieces)))
    assert [index for number in range(len(pieces)) for index in pieces[number]] == list(range(count))


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(1, 9))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_photos_of_boxes_stay_whole(boxes, per_run):
    pieces = Pieces(crops(boxes), per_run)
    found = [positions_of(pieces[number]) for number in range(len(pieces))]
    assert [index for piece in found for index in piece] == list(range(sum(boxes)))
    for number, piece in enumerate(found):
        assert list(pieces.positions(range(number, number + 1))) == piece


def test_results_come_back_in_units():
    pieces = Pieces(photos(50), 4)
    handing = Units(pieces, run, 2, WIDTH, Ranks(), {}, lambda *_: None)
    given_out = [range(3), range(3, 4), range(4, 13)]
    done = list(handing.compute(iter(given_out), None))
    assert [unit for unit, _ in done] == given_out
    assert [index for _, chunk in done for index in chunk.indices] == list(range(50))


@dataclass
class Simulated:
    """Ranks that take a time for a photo each; a rank holds two units, one of which it works on."""

    handing: Units
    pieces: Pieces
    seconds: list[Callable[[float], float]]
    """Of a photo, by the time; of each rank."""
    idle: list[float] = field(default_factory=list)
    most_waiting: int = 0
    end: float = 0.0

    def go(self) -> None:
        self.idle = [0.0] * len(self.seconds)
        free = [0.0] * len(self.seconds)
        events: list[tuple[float, int, range]] = []
        asking = [rank for _ in range(2) for rank in range(len(self.seconds))]
        done: dict[int, range] = {}
        now, given = 0.0, 0
        while True:
            waiting = []
            for rank in asking:
                unit = self.handing.take(rank) if self.handing.may_take(rank) else None
                if unit is None:
                    waiting.append(rank)
                    continue
                begin = max(now, free[rank])
                self.idle[rank] += begin - free[rank]
                count = len(self.pieces.positions(unit))
                free[rank] = begin + count * self.seconds[rank](begin)
                heapq.heappush(events, (free[rank], rank, unit))
            if not events:
                break
            now, rank, unit = heapq.heappop(events)
            self.handing.keep((unit, Chunk((), np.empty((0, 0), np.float32), ())))
            done[unit.start] = unit
            while given in done:
                given = done.pop(given).stop
            self.most_waiting = max(self.most_waiting, sum(map(len, done.values())))
            asking = [*waiting, rank]
        assert given == len(self.pieces)
        self.end = now


def simulated(count: int, seconds: list[Callable[[float], float]], width: int = WIDTH) -> Simulated:
    pieces = Pieces(photos(count), 4)
    handing = Units(pieces, run, 1, width, of_size(len(seconds)), {}, lambda *_: None)
    found = Simulated(handing, pieces, seconds)
    found.go()
    return found


def test_a_slow_rank_does_not_idle_the_others():
    fast, slow = 0.01, 0.08
    found = simulated(10_000, [lambda _: fast, lambda _: slow, lambda _: fast, lambda _: fast])
    best = 10_000 / (3 / fast + 1 / slow)
    assert found.end < 1.05 * best
    assert max(found.idle) == 0  # static shares: 200 s, seven eighths of which three ranks wait


def test_a_rank_that_gets_slow_in_the_middle():
    found = simulated(10_000, [lambda _: 0.01, lambda now: 0.01 if now < 10 else 0.1])
    best = 10 + (10_000 - 2000) / (100 + 10)
    assert found.end < 1.05 * best


@pytest.mark.parametrize("width", [2000, 20_000])
def test_what_waits_for_a_rank_that_hangs_is_bounded(width):
    """One rank takes 1000 times as long: the others go on as far as memory allows, and no further."""
    found = simulated(20_000, [lambda _: 0.01, lambda _: 10.0], width)
    unit = units.PHOTOS_PER_UNIT // 4
    bound = max(units.AHEAD_BYTES // (4 * width * 4), units.UNITS_AHEAD_PER_RANK * 2 * unit)
    assert bound - 3 * unit <= found.most_waiting <= bound + 2 * unit


def test_few_photos_go_round():
    pieces = Pieces(photos(16), 4)
    handing = Units(pieces, run, 1, WIDTH, of_size(4), {}, lambda *_: None)
    assert [handing.take(rank) for rank in range(4)] == [range(n, n + 1) for n in range(4)]
