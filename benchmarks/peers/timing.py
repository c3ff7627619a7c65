"""How every peer is timed: burn-in, then whole batches until the time is over; images by seconds taken."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Answers = Callable[[Iterable[Array]], Iterable[Array]]
"""Takes batches, gives their answers in order. It may run several at once, and look ahead to do so."""


def batches_of(photos: Array, size: int) -> list[Array]:
    """All photos in batches of one size; the first photos come again where the last batch is not full."""
    rows = np.arange(-(-len(photos) // size) * size) % len(photos)
    return [np.ascontiguousarray(photos[piece]) for piece in rows.reshape(-1, size)]


def images_per_second(
    answers: Answers, batches: Sequence[Array], seconds: float, burn_in: float = 1.0
) -> float:
    """Images/s over at least `seconds`, after `burn_in` seconds and a first batch that do not count.

    The clock stops when the last batch that was begun is answered, so with several batches at once the end,
    where some streams wait for the last, counts against them.
    """

    def run(limit: float) -> float:
        images = 0
        started = time.perf_counter()

        def until_over() -> Iterator[Array]:
            nonlocal images
            for batch in itertools.cycle(batches):
                images += len(batch)
                yield batch
                if time.perf_counter() - started >= limit:
                    return

        for _ in answers(until_over()):
            pass
        return images / (time.perf_counter() - started)

    run(0)  # one batch, which may compile for longer than the burn-in
    run(burn_in)
    return run(seconds)
