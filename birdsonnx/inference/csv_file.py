"""Predictions as CSV: a line for each photo, with its likeliest classes and their probabilities.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and a file name can be one.
Such a text gets an apostrophe before it, unless it is asked for raw; numbers stay as they are.
"""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from birdsonnx import artifacts
from birdsonnx.images.folders import Photo
from birdsonnx.inference.verdicts import Judged

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that a spreadsheet may take for a formula, or passes over before one."""

NUMBERS = ("said_probability", "known")
"""Columns of what is said that hold numbers, of which a negative one is no formula."""


def harmless(text: str) -> str:
    """A text as a cell that no spreadsheet computes."""
    return f"'{text}" if text.startswith(FORMULA) else text


class CSVWriter:
    """An open CSV of predictions."""

    def __init__(self, path: Path, file: TextIO, top_k: int, raw: bool, said: Sequence[str] = ()) -> None:
        self._path = path
        self._text = str if raw else harmless
        self._said = said
        self._rows = csv.writer(file)
        columns = [f"{what}_{k + 1}" for k in range(top_k) for what in ("class", "probability")]
        self._rows.writerow(["name", *columns, *said])

    def add(self, judged: Judged, /) -> None:
        """Write one photo's line. Raises ArtifactError."""
        with artifacts.naming(self._path):
            cells = (value for best, p in judged.verdict.top for value in (self._text(best), f"{p:.6f}"))
            found = judged.verdict.cells
            said = [found[name] if name in NUMBERS else self._text(found[name]) for name in self._said]
            self._rows.writerow([self._text(judged.photo.name), *cells, *said])

    def refuse(self, _photo: Photo, _reason: str, /) -> None:
        """A photo that could not be used has no line."""


@contextlib.contextmanager
def writing(path: Path, top_k: int, raw: bool = False, said: Sequence[str] = ()) -> Iterator[CSVWriter]:
    """A CSV that takes its place only once it is complete.

    Args:
        top_k: classes of each photo.
        raw: leave every text as it is.
        said: the columns of what is said of each photo (`Judge.columns`).

    Raises:
        ArtifactError: the file cannot be written.
    """
    with artifacts.completing(path) as temporary:
        with artifacts.naming(path):
            # File names need not be UTF-8: their bytes go through as they are.
            file = temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        try:
            yield CSVWriter(path, file, top_k, raw, said)
        except BaseException:
            with contextlib.suppress(OSError):  # what is not on disk yet: the first error is the cause
                file.close()
            raise
        with artifacts.naming(path):
            file.close()
