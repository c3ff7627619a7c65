"""Predictions as CSV: a line for each photo, with its likeliest classes and their probabilities, and what
else `csv_columns` knows.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and a file name can be one.
Such a text gets an apostrophe before it, unless it is asked for raw; numbers stay as they are.
"""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from birdsonnx import artifacts
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judged
from birdsonnx.inference.keeping.csv_columns import Columns

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that a spreadsheet may take for a formula, or passes over before one."""


def harmless(text: str) -> str:
    """A text as a cell that no spreadsheet computes."""
    return f"'{text}" if text.startswith(FORMULA) else text


class CSVWriter:
    """An open CSV of predictions."""

    def __init__(self, path: Path, file: TextIO, columns: Columns, raw: bool) -> None:
        self._path = path
        self._text = str if raw else harmless
        self._columns = columns
        self._rows = csv.writer(file)
        self._rows.writerow(columns.names())

    def add(self, judged: Judged, /) -> None:
        """Write one photo's line. Raises ArtifactError."""
        with artifacts.naming(self._path):
            self._rows.writerow(self._columns.cells(judged, self._text))

    def refuse(self, _photo: Photo, _reason: str, /) -> None:
        """A photo that could not be used has no line."""


@contextlib.contextmanager
def writing(path: Path, columns: Columns, raw: bool = False) -> Iterator[CSVWriter]:
    """A CSV that takes its place only once it is complete; `raw` leaves every text as it is.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with artifacts.completing(path) as temporary:
        with artifacts.naming(path):
            # File names need not be UTF-8: their bytes go through as they are.
            file = temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        try:
            yield CSVWriter(path, file, columns, raw)
        except BaseException:
            with contextlib.suppress(OSError):  # what is not on disk yet: the first error is the cause
                file.close()
            raise
        with artifacts.naming(path):
            file.close()
