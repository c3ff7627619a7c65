"""What was answered about each photo: its two likeliest classes, and what is right where that is known.

Columns of numbers, since of a million photos objects would take half a gigabyte.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNKNOWN = -1
"""The label of a photo whose right class nobody knows."""


@dataclass(frozen=True)
class Answered:
    """One photo."""

    name: str
    label: int | None
    """Index of the right class; None where that is not known."""
    said: int
    """Index of the likeliest class."""
    probability: float
    """Of that class."""
    second: int | None
    """Index of the next likely one; None where there is one class only."""
    second_probability: float
    label_probability: float
    """Of the right class; NaN where that is not known."""


class Answers:
    """Answers about many photos, in the order in which they came."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._labels, self._said, self._second = array("q"), array("q"), array("q")
        self._probability, self._second_probability, self._log_label = array("d"), array("d"), array("d")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Answered:
        label, second = self._labels[index], self._second[index]
        return Answered(
            self.names[index],
            None if label == UNKNOWN else label,
            self._said[index],
            self._probability[index],
            None if second == UNKNOWN else second,
            self._second_probability[index],
            float(np.exp(self._log_label[index])),
        )

    def add(self, name: str, log_probs: npt.NDArray[np.float32], label: int | None = None) -> None:
        """Note a photo by its finite `log_probs`, float32 `(classes,)`."""
        said = int(log_probs.argmax())
        second, behind = UNKNOWN, 0.0
        if len(log_probs) > 1:
            others = log_probs.copy()
            others[said] = -np.inf
            second = int(others.argmax())
            behind = float(np.exp(log_probs[second]))
        self.names.append(name)
        self._labels.append(UNKNOWN if label is None else label)
        self._said.append(said)
        self._second.append(second)
        # Rounding may leave a probability a little above 1.
        self._probability.append(min(1.0, float(np.exp(log_probs[said]))))
        self._second_probability.append(behind)
        self._log_label.append(float("nan") if label is None else float(log_probs[label]))

    @property
    def said(self) -> npt.NDArray[np.int64]:
        """The likeliest class of each photo, int64 `[photos]`."""
        return np.array(self._said, np.int64)

    @property
    def probability(self) -> npt.NDArray[np.float64]:
        """Of that class, float64 `[photos]`."""
        return np.array(self._probability, np.float64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether it is the right class, bool `[photos]`; False where that is not known."""
        return np.equal(np.array(self._labels, np.int64), self.said)

    def worst(self, most: int) -> list[Answered]:
        """Wrong answers, those first for which the right class was the least likely."""
        wrong = np.flatnonzero(~self.right)
        surprise = np.array(self._log_label, np.float64)[wrong]
        return self._at(wrong[np.argsort(surprise, kind="stable")[:most]])

    def least_certain(self, most: int) -> list[Answered]:
        """Answers of the lowest probability, right or wrong."""
        return self._at(np.argsort(self.probability, kind="stable")[:most])

    def _at(self, indices: Iterable[int]) -> list[Answered]:
        return [self[int(index)] for index in indices]
