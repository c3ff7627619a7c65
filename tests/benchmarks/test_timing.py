"""The clock of the side-by-side suite."""

import time
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from benchmarks.peers.timing import Answers, Array, batches_of, images_per_second
from birdsonnx.runtime.sessions import in_streams

BATCHES = [np.zeros((4, 1), np.uint8)] * 3


def slept(batch: Array) -> Array:
    time.sleep(0.010)
    return batch


def one_by_one(batches: Iterable[Array]) -> Iterator[Array]:
    return map(slept, batches)


def rate(answers: Answers, wanted: float, seconds: float = 0.3) -> float:
    """Images/s, the best of some tries: a busy machine makes a sleep longer, nothing makes it shorter."""
    best = 0.0
    for _ in range(20):
        best = max(best, images_per_second(answers, BATCHES, seconds, burn_in=0.05))
        if best >= 0.96 * wanted:
            break
    return best


def test_a_known_sleep() -> None:
    assert rate(one_by_one, 400) == pytest.approx(400, rel=0.04)


def test_two_streams_sleep_at_once() -> None:
    assert rate(lambda batches: in_streams(2, slept, batches), 800) == pytest.approx(800, rel=0.06)


def test_batches_that_wait_in_a_queue_are_paid_for() -> None:
    """What takes batches at once and answers later gains nothing by it."""

    def answers(batches: Iterable[Array]) -> list[Array]:
        waiting = []
        for batch in batches:
            waiting.append(batch)
            time.sleep(0.002)
        time.sleep(0.008 * len(waiting))
        return waiting

    assert rate(answers, 400, seconds=0.1) == pytest.approx(400, rel=0.06)


def test_a_slow_first_batch_does_not_count() -> None:
    first = True

    def answers(batches: Iterable[Array]) -> Iterator[Array]:
        nonlocal first
        for batch in batches:
            if first:
                time.sleep(0.3)
            first = False
            yield slept(batch)

    assert images_per_second(answers, BATCHES, seconds=0.3, burn_in=0.05) > 350


@pytest.mark.parametrize(("photos", "size", "rows"), [(5, 2, 6), (4, 4, 4), (3, 16, 16)])
def test_batches_are_all_full_and_hold_every_photo_in_order(photos: int, size: int, rows: int) -> None:
    batches = batches_of(np.arange(photos)[:, None], size)

    assert {len(batch) for batch in batches} == {size}
    assert np.concatenate(batches).ravel().tolist() == [row % photos for row in range(rows)]
