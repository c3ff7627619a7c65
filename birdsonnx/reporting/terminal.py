"""The one way to a terminal: every line that people read goes through here, made printable.

A file name, a class name or a key of a model may hold anything, also what moves the cursor or begins another
line. Who prints need not think of it.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Protocol, TextIO

from birdsonnx.errors import ArtifactError
from birdsonnx.reporting.printable import printable

lock = threading.RLock()
"""Held by who writes: progress is drawn by a thread of its own."""


class Drawing(Protocol):
    """What stands below the last line of a terminal, and is drawn again after a line was written."""

    def hide(self) -> None: ...


_drawing: Drawing | None = None
_written_s = float("-inf")
"""When the last line was."""


def give_way(drawing: Drawing | None = None) -> None:
    """Hide what is drawn; from now on `drawing` is. Call it with the `lock`."""
    global _drawing
    before, _drawing = _drawing, drawing
    if before is not None:
        before.hide()


def quiet_s() -> float:
    """How long no line was written to a terminal."""
    return time.monotonic() - _written_s


def _make_way() -> None:
    global _written_s
    _written_s = time.monotonic()
    give_way()


def write_line(line: str, error: bool = False) -> None:
    """One line on stdout, or shortened on stderr; what the terminal's encoding lacks becomes its escape.

    Raises:
        ArtifactError: stdout takes no more, such as a file on a full disk. A stderr that takes no more is
            given up in silence: there is nobody to tell, and the exit code stands.
        BrokenPipeError: who read stdout is gone.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:  # closed before we began
        return
    line = shortened(line) if error else line
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        with lock:
            if stream.isatty():
                _make_way()
            text = printable(line).encode(encoding, "backslashreplace").decode(encoding)
            print(text, file=stream, flush=True)
    except OSError as failure:
        lose(stream)
        if error:
            return
        if isinstance(failure, BrokenPipeError):
            raise
        raise ArtifactError(f"cannot write to stdout: {failure.strerror}") from failure


def lose(stream: TextIO) -> None:
    """Throw away what a stream that takes no more still holds: Python would try again at the exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


LONGEST = 2000
"""Characters of a line about an error."""


def shortened(line: str) -> str:
    """A line about an error without the middle of what is too long to be read."""
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST - 500]} … {line[-400:]}"


def write_lines(lines: Iterable[str], error: bool = False) -> None:
    """Lines that are ours to part."""
    for line in lines:
        write_line(line, error)
