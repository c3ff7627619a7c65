"""A bar on stderr, by rich: what is done, how far, until when. It leaves nothing behind."""

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from birdsonnx.reporting import terminal
from birdsonnx.reporting.printable import printable
from birdsonnx.reporting.progress import Progress


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
        """The cursor stays: a process that is killed could not bring it back."""
        return False


class Bar:
    """Appears after 2 s; gives way to every line that is written, and is drawn again below it."""

    first_s = 2.0
    every_s = 0.2

    def __init__(self) -> None:
        self._drawn: tuple[RichProgress, TaskID] | None = None

    def show(self, progress: Progress) -> None:
        if self._drawn is None:
            if (
                terminal.quiet_s() < self.every_s
            ):  # lines that follow each other closely would make it flicker
                return
            terminal.give_way(self)
            # Lines come through `terminal`, to the stream that they are for: rich would put all on stderr.
            bar = RichProgress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(None, table_column=Column(ratio=1)),
                TextColumn("{task.fields[state]}", markup=False, table_column=Column(no_wrap=True)),
                console=_Console(stderr=True),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                expand=True,
            )
            task = bar.add_task(printable(progress.title), total=progress.total, state=progress.state)
            bar.start()
            self._drawn = bar, task
        bar, task = self._drawn
        bar.update(task, completed=progress.done, state=progress.state, refresh=True)

    def hide(self) -> None:
        """Nothing where it is hidden already."""
        if self._drawn is not None:
            bar, _ = self._drawn
            self._drawn = None
            bar.stop()
