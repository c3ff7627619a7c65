"""What a person sees while a verb runs: lines on stdout, and how far it is on stderr."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from birdsonnx.reporting.progress import Clock, Lines, Progress, View, shown
from birdsonnx.reporting.terminal import write_line


class Console:
    """Lines and progress of rank 0; the other ranks are quiet. Under `--json` there are no lines; progress is
    shown all the same, on stderr.

    Args:
        clock: of progress, in seconds.
    """

    def __init__(self, speaks: bool = True, json: bool = False, clock: Clock = time.monotonic) -> None:
        self._speaks = speaks
        self._lines = speaks and not json
        self._clock = clock

    def say(self, line: str) -> None:
        """One line on stdout."""
        if self._lines:
            write_line(line)

    def progress(
        self, title: str, total: int | None = None, /
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show how far a piece of work is that takes 2 s or longer; gives the function that advances it.

        In a terminal that is a bar, else a line every 30 s; on stderr both.

        Args:
            title: what is done, such as `comparing with Keras`, or what is counted, such as `photos`.
            total: how many steps there are; None: nobody knows.
        """
        if not self._speaks or sys.stderr is None:
            return nullcontext(lambda _: None)
        return shown(Progress(title, total, self._clock), _view())


def _view() -> View:
    # One that cannot move its cursor is no better than a log.
    if not sys.stderr.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return Lines()
    from birdsonnx.reporting.bar import Bar  # not at the top: where there is no terminal, nobody needs rich

    return Bar()
