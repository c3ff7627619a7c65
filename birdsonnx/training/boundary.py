"""Where it is cheapest to divide a network: which tensors to keep of every photo, by size and measured time.

The answer depends on the moment's timings, free memory and free space; `boundary_choice` keeps it.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from birdsonnx.errors import ImageError
from birdsonnx.runtime import memory
from birdsonnx.runtime.sessions import Session
from birdsonnx.training.partition import Boundary, Network

PROBED = 4
"""Photos per timing run."""
DECISIVE = 0.8
WORTH_S = 0.001
"""A boundary further from the trained part must cost less than this share of the nearer one, and save so many
seconds per photo and epoch, since timings are noisy."""
DISK_BYTES_PER_S = 200e6
"""Assumed of tables that memory cannot hold: a plain disk's."""


def cheapest(
    network: Network, photos: int, threads: int, space: int, decode: Callable[[int], object]
) -> Boundary:
    """The boundary whose features cost least per photo and epoch: to read them, and to run the frozen layers
    between them and the trained part.

    Args:
        network: frozen and trained nodes.
        photos: in training and test set together.
        threads: that run photos at the same time.
        space: bytes that the tables may take; the frontier is considered whatever its size.
        decode: reads the n-th photo, as every epoch must where the photos themselves are the boundary.
    """
    boundaries = network.boundaries()
    if len(boundaries) == 1:
        return boundaries[0]
    best, least = boundaries[0], np.inf
    frontier = boundaries[0]
    considered = np.inf
    for boundary in boundaries:
        # What is further away takes more time, so it must at least be smaller.
        if boundary.size >= considered and not boundary.is_photo:
            continue
        if not boundary.is_photo and boundary is not frontier and 4 * boundary.size * photos > space:
            continue
        considered = min(considered, boundary.size)
        if boundary.is_photo:
            reading_s = _time_of(lambda: [decode(number) for number in range(PROBED)]) / threads
        else:
            rate = _copy_rate() if 4 * boundary.size * photos < _memory() / 2 else DISK_BYTES_PER_S
            reading_s = 4 * boundary.size / rate
        if boundary is not frontier and reading_s >= DECISIVE * least:
            continue
        cost = reading_s + (0.0 if boundary is frontier else _frozen_s(network, boundary, frontier) / threads)
        if boundary is frontier or cost < min(DECISIVE * least, least - WORTH_S):
            best, least = boundary, cost
    return best


def _frozen_s(network: Network, start: Boundary, end: Boundary) -> float:
    session = Session(network.between(start, end).SerializeToString())
    generator = np.random.default_rng(0)
    if start.is_photo:
        shape = (PROBED, *network.model.input_size)
        feeds = {start.tensors[0]: generator.integers(0, 256, shape, np.uint8)}
    else:
        feeds = {
            name: generator.random((PROBED, *shape), np.float32)
            for name, shape in zip(start.tensors, start.shapes, strict=True)
        }
    return _time_of(lambda: session.run(feeds))


def _time_of(work: Callable[[], object]) -> float:
    """Seconds per photo of `PROBED` photos, the better of two runs after a first one."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[1:]) / PROBED


def _copy_rate() -> float:
    """Bytes per second of reading rows that memory holds."""
    table = np.ones(16_000_000, np.float32)
    into = np.empty_like(table)
    return table.nbytes / (PROBED * _time_of(lambda: np.copyto(into, table)))


def _memory() -> int:
    """Bytes of memory that could be used now, or half of all where the system does not say."""
    allowed = memory.limit()
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, allowed)
    return allowed // 2


def decoder_of(paths: Sequence[Path], decode: Callable[[Path], object]) -> Callable[[int], object]:
    """Reads the n-th photo. Damaged photos are timed as well; `features` refuses them later."""

    def read(number: int) -> object:
        try:
            return decode(paths[number % len(paths)])
        except ImageError:
            return None

    return read
