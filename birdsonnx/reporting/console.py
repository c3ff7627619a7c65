"""What a person sees while a verb runs: lines on stdout, and a bar on stderr where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from birdsonnx.reporting.printable import printable
from birdsonnx.reporting.terminal import write_line


class Console:
    """Lines and progress of rank 0; the other ranks, and `--json`, are quiet."""

    def __init__(self, speaks: bool = True, json: bool = False) -> None:
        self._lines = speaks and not json
        self._bars = speaks and sys.stderr is not None and sys.stderr.isatty()

    def say(self, line: str) -> None:
        """One line on stdout."""
        if self._lines:
            write_line(line)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of `total` steps; gives the function that advances it."""
        if not self._bars:
            yield lambda _: None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(printable(title), total=total)
            yield lambda count: bar.advance(task, count)
