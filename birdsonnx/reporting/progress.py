"""How far work is: a bar in a terminal, in a log a line now and then; of work that is soon done, nothing."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from birdsonnx.reporting import terminal

Clock = Callable[[], float]

LOOKED_AT_EVERY_S = 0.2


class Progress:
    """One piece of work: what it is, how much of it is done, how long the rest will take.

    Args:
        title: what is done, or what is counted.
        total: how many steps there are; None: nobody knows.
        clock: seconds; those between two calls count.
    """

    def __init__(self, title: str, total: int | None, clock: Clock = time.monotonic) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self._clock = clock
        self._started = self._latest = clock()

    def advance(self, steps: int) -> None:
        """So many steps more are done."""
        self.done += steps if self.total is None else min(steps, self.total - self.done)
        self._latest = self._clock()

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at the mean pace so far; None where nothing tells, or that time is over."""
        if self.total is None or not self.done:
            return None
        pace_s = (self._latest - self._started) / self.done
        left_s = self._latest + pace_s * (self.total - self.done) - self._clock()
        return left_s if left_s > 0 else None

    @property
    def state(self) -> str:
        """Such as `1,200 of 9,000, 2 min 10 s left`, or `1,200, 5 s so far` of who knows how many."""
        of = "" if self.total is None else f" of {self.total:,}"
        counted = f"{self.done:,}{of}, " if of or self.done else ""
        left_s = self.left_s
        if left_s is None:
            return f"{counted}{in_words(self.elapsed_s)} so far"
        return f"{counted}{in_words(left_s)} left"


def in_words(seconds: float) -> str:
    """A duration as one says it: `40 s`, `2 min 10 s`, `3 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class View(Protocol):
    """Where progress is shown."""

    first_s: float
    """What ends before is not shown at all."""
    every_s: float
    """It is shown anew after so long."""

    def show(self, progress: Progress) -> None: ...
    def hide(self) -> None: ...


class Lines:
    """A line on stderr every 30 s, for a log."""

    first_s = every_s = 30.0

    def show(self, progress: Progress) -> None:
        terminal.write_line(f"{progress.title} {progress.state}", error=True)

    def hide(self) -> None:
        pass


class Shown:
    """A piece of work and its view, which `look` keeps up to date."""

    def __init__(self, progress: Progress, view: View) -> None:
        self.progress = progress
        self._view = view
        self._next_s = view.first_s

    def look(self) -> None:
        """Show how far the work is, where that is due."""
        if self.progress.elapsed_s >= self._next_s:
            self._next_s = self.progress.elapsed_s + self._view.every_s
            with terminal.lock:
                self._view.show(self.progress)

    def end(self) -> None:
        with terminal.lock:
            self._view.hide()


_running: list[Shown] = []
"""Pieces of work, each a part of the one before: the last one is shown."""


@contextlib.contextmanager
def shown(progress: Progress, view: View) -> Iterator[Callable[[int], None]]:
    """Show a piece of work while the block runs, also through one long step; gives what advances it."""
    piece, ended = Shown(progress, view), threading.Event()

    def watch() -> None:
        while not ended.wait(LOOKED_AT_EVERY_S):
            if _running[-1:] == [piece]:
                piece.look()

    watching = threading.Thread(target=watch, name="progress", daemon=True)
    _running.append(piece)
    watching.start()
    try:
        yield progress.advance
    finally:
        ended.set()
        watching.join()
        _running.remove(piece)
        piece.end()
