"""A sum of many numbers over all ranks, part by part, with two parts under way.

While one part's numbers travel, those of the other are added. And MPICH takes scratch memory for each call,
which for all of them at once is new memory every time: pages that the kernel has to clear, and a trip to
memory for each addition. For 94 MB (ResNet50), medians of 4 to 5, at once and in parts of 16 MB:

| link | 2 hosts | 4 hosts |
|---|---|---|
| 10 Gbit/s, 50 us | 198 and 144 ms | 691 and 543 ms |
| 10 Gbit/s, 1 ms | 322 and 194 ms | 991 and 619 ms |
| 1 Gbit/s, 1 ms | 855 and 796 ms | |
| none, as many ranks on 2 cores | 56 and 38 ms | 167 and 109 ms |

Parts of 8 MB take up to 7 % longer than those of 16, of 32 MB up to 60 %; one part at a time up to 27 %, four
up to 15 %. `python -m benchmarks.part_sizes` measures it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

PART_BYTES = 16_000_000
UNDER_WAY = 2

Steps = Iterator[Any]
"""The MPI requests of one part's sum: each is begun when the one before is done."""


def add_up_in_parts(
    values: npt.NDArray[Any],
    begin: Callable[[npt.NDArray[Any]], Steps],
    wait: Callable[[Any], None],
    part_bytes: int,
) -> None:
    """Let `begin` sum each part of `values`, `[n]`, in place. The parts take turns, so that all ranks begin
    their requests in the same order, as MPI wants it, even if some have more steps than others."""
    parts = map(begin, parts_of(values, part_bytes))
    under_way: deque[tuple[Steps, Any]] = deque()

    def go_on(steps: Steps) -> None:
        if (request := next(steps, None)) is not None:
            under_way.append((steps, request))

    while True:
        while len(under_way) < UNDER_WAY and (part := next(parts, None)) is not None:
            go_on(part)
        if not under_way:
            return
        steps, request = under_way.popleft()
        wait(request)
        go_on(steps)


def parts_of(values: npt.NDArray[Any], part_bytes: int = PART_BYTES) -> Iterator[npt.NDArray[Any]]:
    """`values`, `[n]`, so many bytes at a time."""
    size = part_bytes // values.itemsize
    return (values[start : start + size] for start in range(0, len(values), size))
