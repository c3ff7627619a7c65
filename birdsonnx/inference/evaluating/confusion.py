"""Which class was taken for which: the cells of the matrix that are not 0, at most one for each photo."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

MOST_IN_MATRIX = 1000
"""Classes of a matrix that is written whole. That of the 11,000 species of birds has 121 million cells."""


@dataclass(frozen=True)
class Confusion:
    """Numbers of photos by the class that they show and the one that was named; cell by cell."""

    size: int
    """Number of classes."""
    label: Counts
    """Index of the right class, int64 `[cells]`, rising; of equal ones `named` rises."""
    named: Counts
    """Index of the class that was named, int64 `[cells]`."""
    count: Counts
    """int64 `[cells]`, none of them 0."""

    @classmethod
    def of(cls, counts: Mapping[tuple[int, int], int], size: int) -> "Confusion":
        """From the photos of each `(label, named)`."""
        cells = sorted((*cell, count) for cell, count in counts.items() if count)
        label, named, count = np.array(cells, np.int64).reshape(-1, 3).T
        return cls(size, label, named, count)

    @property
    def photos(self) -> int:
        return int(self.count.sum())

    @property
    def right(self) -> Counts:
        """Photos of each class that were named right, int64 `[size]`."""
        return self._sums(self.label, self.label == self.named)

    @property
    def shown(self) -> Counts:
        """Photos that show each class, int64 `[size]`."""
        return self._sums(self.label)

    @property
    def said(self) -> Counts:
        """Photos for which each class was named, int64 `[size]`."""
        return self._sums(self.named)

    def mistakes(self) -> list[tuple[int, int, int]]:
        """`(count, label, named)` of each class that was taken for another one, the most frequent first."""
        cells = zip(self.count.tolist(), self.label.tolist(), self.named.tolist(), strict=True)
        return sorted((cell for cell in cells if cell[1] != cell[2]), reverse=True)

    def matrix(self) -> Counts:
        """The whole matrix, int64 `[label, named]`."""
        cells = np.zeros((self.size, self.size), np.int64)
        cells[self.label, self.named] = self.count
        return cells

    def among(self, classes: Counts) -> "Confusion":
        """Of some classes alone: rising indices, int64 `[n]`."""
        inside = np.isin(self.label, classes) & np.isin(self.named, classes)
        label, named = (np.searchsorted(classes, indices[inside]) for indices in (self.label, self.named))
        return Confusion(len(classes), label, named, self.count[inside])

    def most_confused(self, most: int) -> Counts:
        """The classes that are in the most mistakes, on either side; rising indices, int64 `[<= most]`."""
        wrong = self.shown + self.said - 2 * self.right
        return np.sort(np.argsort(-wrong, kind="stable")[:most])

    def _sums(self, classes: Counts, where: npt.NDArray[np.bool_] | bool = True) -> Counts:
        return np.bincount(classes, self.count * where, self.size).astype(np.int64)
