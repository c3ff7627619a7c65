"""The one way to a terminal: every line that people read goes through here, made printable.

A file name, a class name or a key of a model may hold anything, also what moves the cursor or begins another
line. Who prints need not think of it.
"""

import sys
from collections.abc import Iterable

from birdsonnx.reporting.printable import printable


def write_line(line: str, error: bool = False) -> None:
    """One line on stdout, or shortened on stderr; what the terminal's encoding lacks becomes its escape."""
    stream = sys.stderr if error else sys.stdout
    line = shortened(line) if error else line
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


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
