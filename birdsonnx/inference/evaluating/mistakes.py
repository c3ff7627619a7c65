"""The photos that were named wrongly: what was said of each, and how surely.

Of millions of photos only the wrong ones are kept, 16 bytes each beside a name that is in memory anyway.
"""

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.inference.keeping.csv_file import harmless

COLUMNS = ("name", "class", "class_probability", "named", "named_probability")
"""Of the CSV."""


@dataclass(frozen=True)
class Mistake:
    """One photo that was named wrongly."""

    name: str
    label: str
    """The right class."""
    label_probability: float
    """How likely the right class was to the model."""
    named: str
    """The class that it named."""
    named_probability: float

    def as_json(self) -> dict[str, Any]:
        """Under the names of the CSV's columns."""
        values = (self.name, self.label, self.label_probability, self.named, self.named_probability)
        return dict(zip(COLUMNS, values, strict=True))


class Mistakes:
    """All photos that were named wrongly.

    Args:
        classes: class names in index order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._names: list[str] = []
        self._labels, self._named = array("i"), array("i")
        self._label_log_probs, self._named_log_probs = array("f"), array("f")

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, log_probs: npt.NDArray[np.float32], label: int) -> None:
        """Keep a photo with its log-probabilities, float32 `(classes,)`, if the likeliest class is not
        `label`."""
        named = int(log_probs.argmax())
        if named == label:
            return
        self._names.append(name)
        self._labels.append(label)
        self._named.append(named)
        self._label_log_probs.append(log_probs[label])
        self._named_log_probs.append(log_probs[named])

    def surest_first(self, most: int | None = None) -> Iterator[Mistake]:
        """The mistakes, those first of which the model was surest; of equal ones by name."""
        # By the logarithm: as a probability, many sure ones are 1 in float32.
        order = sorted(range(len(self)), key=lambda at: (-self._named_log_probs[at], self._names[at]))
        for at in islice(order, most):
            yield Mistake(
                self._names[at],
                self._classes[self._labels[at]],
                float(np.exp(self._label_log_probs[at])),
                self._classes[self._named[at]],
                float(np.exp(self._named_log_probs[at])),
            )


def beside(table: Path) -> Path:
    """Where the mistakes go when the table of the classes goes to `table`: `table_mistakes.csv`."""
    return table.with_name(f"{table.stem}_mistakes{table.suffix}")


def write(mistakes: Mistakes, path: Path, raw: bool = False) -> None:
    """A CSV of all mistakes, the surest first. Unless `raw`, the names are made harmless to spreadsheets.
    Raises ArtifactError."""
    text = str if raw else harmless
    with (
        artifacts.replacing(path) as temporary,
        # File names need not be UTF-8: their bytes go through as they are.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for each in mistakes.surest_first():
            right, said = f"{each.label_probability:.6f}", f"{each.named_probability:.6f}"
            rows.writerow([text(each.name), text(each.label), right, text(each.named), said])
