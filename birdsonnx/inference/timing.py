"""Runs of one piece of work on several threads, timed one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from birdsonnx.runtime.sessions import in_streams


@dataclass(frozen=True)
class Timing:
    """Runs of one piece of work, timed one by one."""

    durations_s: tuple[float, ...]
    elapsed_s: float
    """From the start of the first run to the end of the last, over all streams."""

    def percentile_s(self, percent: float) -> float:
        """A percentile of the durations, interpolated linearly between neighbours (numpy's default)."""
        return float(np.percentile(self.durations_s, percent))


def timed(work: Callable[[], object], until: float, streams: int = 1) -> Timing:
    """Run `work` over and over on `streams` threads at once, until `perf_counter()` comes to `until`.

    The first run of each stream is a warm-up and not counted. After at least one more, a stream stops where
    another run of the same length would end too late.
    """

    def repeat(_: int) -> list[float]:
        durations: list[float] = []
        while not durations or perf_counter() + durations[-1] <= until:
            began = perf_counter()
            work()
            durations.append(perf_counter() - began)
        return durations

    for _ in in_streams(streams, lambda _: work(), range(streams)):
        pass
    started = perf_counter()
    durations = [duration for stream in in_streams(streams, repeat, range(streams)) for duration in stream]
    return Timing(tuple(durations), perf_counter() - started)
