"""Lists and tables of names that people and their programs write: read whole, as text."""

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.errors import DataError

LARGEST = 2**24
"""Bytes: the 17,000 lines of a list of all birds take 2 MB."""

SEPARATORS = (",", "\t", ";")
"""Between the cells of a line: CSV; what GBIF gives; CSV of a spreadsheet whose decimal mark is a comma."""


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a text in UTF-8, with or without a byte order mark, whatever ends them.

    Args:
        what: the file is to be, in messages.

    Raises:
        DataError: it cannot be read, is no UTF-8, or larger than such a file is.
    """
    try:
        text = read_bytes(path, LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: no text in UTF-8 ({error.reason} at byte {error.start}); save {what} as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as {what} ({error.strerror})") from None
    # Not splitlines, which also splits at what a name may hold.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def first_cell(line: str, separator: str) -> str:
    """The first cell of a line. A quotation mark that nothing closes swallows no other lines."""
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a cell beyond the limit of Python's reader
        cells = line.split(separator)
    return cells[0].strip() if cells else ""


def alike(name: str) -> str:
    """What names have in common that differ only in case, in how Unicode composes their letters, and in
    spaces and underscores between words."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join(folded.replace("_", " ").split())


def enumerated(words: Sequence[str], most: int) -> str:
    """The first of some texts, and how many there are beside."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
