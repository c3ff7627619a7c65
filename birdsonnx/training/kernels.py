"""What computes the loss of some photos and its gradient, as the replicas of `gradients` see it."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy.typing as npt

from birdsonnx.training.parameters import Flat

Feeds = Mapping[str, npt.NDArray[Any]]
"""By the names of the graph's inputs: rows at the boundary, targets, and masks for each Dropout."""

Run = Callable[[Feeds], None]
"""Leaves the summed gradient of some photos in a flat buffer, and their summed loss as its last element."""

MOST_PER_SLICE = 32
"""Photos per run at the most: they share the cost of writing and adding a gradient of all weights."""


class Kernels(Protocol):
    """Shared by all replicas."""

    @property
    def most(self) -> int:
        """Photos per run that its memory is meant for, at the most."""

    def refresh(self, pool: Executor) -> None:
        """Make what follows from the weights anew, once they have changed; no run may be under way."""

    def runs(self, buffers: Iterable[Flat]) -> list[Run]:
        """A replica's runs, one for each buffer: of these only one at a time is called."""


def per_slice(photos: int, replicas: int, most: int) -> int:
    """Photos of a run, so that every replica gets the same number of runs, each of `most` photos at the
    most."""
    rounds = -(-photos // (replicas * min(most, MOST_PER_SLICE)))
    return -(-photos // (replicas * rounds))
