"""Which species can occur: the others' probability is taken away.

Of a photo that shows one of the species S, the probability of a class c in S is what remains of it,
`p(c) / sum of p over S` (the conditional probability); that of all others is 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import DataError
from birdsonnx.inference.judging.class_names import ClassNames
from birdsonnx.inference.judging.name_files import SEPARATORS, first_cell, lines_of

HEADERS = ("name", "class", "species")
"""What may stand above the names."""

COMMENT = "#"

EMPTY = "".join(SEPARATORS) + '" '
"""All that a line without a name may hold."""


@dataclass(frozen=True, eq=False)
class Species:
    """The classes that can occur."""

    indices: npt.NDArray[np.int64]
    """Of these classes, ascending."""

    def conditional(self, log_probs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The log-probabilities of all classes, float64 `(classes,)`, given that one of these is right; those
        of the others are minus infinity.

        In log space: all that can occur may be so unlikely that their probabilities are 0 in any precision.
        """
        kept = log_probs[self.indices].astype(np.float64)
        largest = kept.max()
        found = np.full(len(log_probs), -np.inf)
        found[self.indices] = kept - (largest + np.log(np.exp(kept - largest).sum()))
        return found


@dataclass(frozen=True)
class SpeciesList:
    """Names of species, not yet compared with a model's."""

    where: str
    lines: tuple[str, ...]
    is_file: bool = True
    """Whether they are lines of a file, with comments, a header and further columns."""

    @classmethod
    def read(cls, path: Path) -> "SpeciesList":
        """Of a text with a name on each line, or a CSV whose first column they are. Raises DataError."""
        return cls(str(path), tuple(lines_of(path, "a list of species, one name a line")))

    def among(self, classes: Sequence[str], say: Callable[[str], None]) -> Species:
        """Which of a model's classes they are.

        Raises:
            DataError: none, or a name that may be one class or another.
        """
        names = ClassNames(self.where, classes)
        found = {index for index in self._indices(names) if index is not None}
        names.require_some()
        for line in names.notes():
            say(line)
        say(f"species: {len(found)} of {len(classes)} classes can occur ({self.where})")
        return Species(np.array(sorted(found), np.int64))

    def _indices(self, names: ClassNames) -> list[int | None]:
        if not self.is_file:
            return [names.index([name], None) for name in self.lines]
        found: list[int | None] = []
        is_first = True
        for number, line in enumerate(self.lines, 1):
            text = line.strip()
            if not text.strip(EMPTY) or text.startswith(COMMENT):
                continue
            readings = _readings(line)
            if is_first and readings[-1].casefold() in HEADERS and not names.has(readings):
                is_first = False
                continue
            is_first = False
            found.append(names.index(readings, number))
        return found


def _readings(line: str) -> list[str]:
    """What a line may name: all of it, without the comment behind it, or its first cell."""
    bare = line.partition(f" {COMMENT}")[0].strip()
    cells = [cell for separator in SEPARATORS if (cell := first_cell(bare, separator)) and cell != bare]
    shortest = min(cells, key=len, default=bare)
    return list(dict.fromkeys([line, line.strip(), bare, *cells, shortest]))


def of_names(names: Sequence[str]) -> SpeciesList:
    """Of names that a program gives. Raises DataError where one is no text."""
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise DataError(f"species: {wrong!r} is no name")
    return SpeciesList("species", tuple(names), is_file=False)
