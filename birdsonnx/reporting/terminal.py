"""The one way to a terminal: every line that people read goes through here, made printable.

A file name, a class name or a key of a model may hold anything, also what moves the cursor or begins another
line. Who prints need not think of it.
"""

import sys
from collections.abc import Iterable

from birdsonnx.reporting.printable import printable


def write_line(line: str, error: bool = False) -> None:
    """One line on stdout, or on stderr; what the terminal's encoding lacks becomes its escape."""
    stream = sys.stderr if error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def write_lines(lines: Iterable[str], error: bool = False) -> None:
    """Lines that are ours to part."""
    for line in lines:
        write_line(line, error)
