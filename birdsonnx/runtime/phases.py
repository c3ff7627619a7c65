"""Seconds of each phase of a rank's work, for whoever asks where the time goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from birdsonnx.runtime.ranks import Ranks

OfRanks = list[dict[str, float]]
"""Seconds by phase, of each rank, in rank order."""


class Phases:
    """Of this rank, in the order in which they first come; kept by its main thread alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def total(self, *phases: str) -> float:
        return sum(self.seconds.get(phase, 0.0) for phase in phases)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count what happens inside to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - started)

    def of_all(self, ranks: Ranks) -> OfRanks:
        """Every rank calls this."""
        return ranks.everyone({name: round(value, 3) for name, value in self.seconds.items()})


def longest(phases: OfRanks) -> str:
    """One line: of each phase, the seconds of the rank that took longest."""
    names = dict.fromkeys(name for each in phases for name in each)
    found = {name: max(each.get(name, 0.0) for each in phases) for name in names}
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items())
