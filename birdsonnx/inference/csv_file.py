"""Predictions as CSV: a line for each photo, with its likeliest classes and their probabilities."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from birdsonnx import artifacts
from birdsonnx.inference.summary import Top


class CSVWriter:
    """An open CSV of predictions."""

    def __init__(self, path: Path, file: TextIO, top_k: int) -> None:
        self._path = path
        self._rows = csv.writer(file)
        columns = [f"{what}_{k + 1}" for k in range(top_k) for what in ("class", "probability")]
        self._rows.writerow(["name", *columns])

    def add(self, name: str, top: Top) -> None:
        """Write one photo's line. Raises ArtifactError."""
        with artifacts.naming(self._path):
            self._rows.writerow([name, *(value for best, p in top for value in (best, f"{p:.6f}"))])


@contextlib.contextmanager
def writing(path: Path, top_k: int) -> Iterator[CSVWriter]:
    """A CSV that takes its place only once it is complete.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with artifacts.completing(path) as temporary:
        with artifacts.naming(path):
            # File names need not be UTF-8: their bytes go through as they are.
            file = temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        try:
            yield CSVWriter(path, file, top_k)
        except BaseException:
            with contextlib.suppress(OSError):  # what is not on disk yet: the first error is the cause
                file.close()
            raise
        with artifacts.naming(path):
            file.close()
