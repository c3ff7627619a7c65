"""How many photos a judge would name, and how right these names are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.inference.judging.thresholds import Thresholds
from birdsonnx.inference.judging.verdicts import UNSURE, Judge

Labelled = tuple[str, npt.NDArray[np.float32], int]
"""A photo's name, its log-probabilities, float32 `(classes,)`, and the index of its right class."""


@dataclass(frozen=True)
class Sure:
    """Photos whose likeliest class reaches its threshold."""

    thresholds: Thresholds
    photos: int
    """All of them."""
    sure: int
    right: int
    """Of the sure ones."""

    @property
    def coverage(self) -> float:
        return self.sure / self.photos

    @property
    def accuracy(self) -> float | None:
        """Of the sure ones; None where there are none."""
        return self.right / self.sure if self.sure else None

    def as_json(self) -> dict[str, Any]:
        """`precision`: what the model's thresholds were fitted for; `threshold`: the one that was given."""
        precision = self.thresholds.precision
        return {
            "photos": self.sure,
            "coverage": self.coverage,
            "accuracy": self.accuracy,
            "precision": precision,
            "threshold": self.thresholds.of_taxa if precision is None else None,
        }


class Judging:
    """Photos with their right classes, passed on as a judge sees them."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._photos = self._sure = self._right = 0
        self.off_list = 0
        """Photos whose right class cannot occur."""

    def seen(self, answers: Iterable[Labelled]) -> Iterator[Labelled]:
        """The same answers, without the probability of the species that cannot occur."""
        species, thresholds = self._judge.species, self._judge.thresholds
        if species is None and thresholds is None:
            yield from answers
            return
        names = self._judge.class_names
        for name, log_probs, label in answers:
            verdict = self._judge.verdict(log_probs)
            self._photos += 1
            if verdict.level != UNSURE:
                self._sure += 1
                self._right += verdict.said == names[label]
            if species is not None:
                log_probs = species.conditional(log_probs).astype(np.float32)
                self.off_list += not np.isfinite(log_probs[label])
            yield name, log_probs, label

    @property
    def sure(self) -> Sure | None:
        """None where there are no thresholds, or no photos."""
        thresholds = self._judge.thresholds
        if thresholds is None or not self._photos:
            return None
        return Sure(thresholds, self._photos, self._sure, self._right)
