"""How right the predictions are: accuracy, top-5, loss, per class, and who is taken for whom."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import DataError
from birdsonnx.inference.hdf5 import Predictions


@dataclass(frozen=True)
class Evaluation:
    """Figures over a labelled set of photos."""

    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    """`[label, predicted]` counts."""
    top5_hits: int
    loss: float
    """Mean negative log-likelihood of the right class."""

    @property
    def photos(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.photos)

    @property
    def top5(self) -> float:
        return self.top5_hits / self.photos

    def per_class(self) -> list[dict[str, Any]]:
        """Per class: photos, correct, recall, precision; None where there is nothing to divide by."""
        rows = []
        for index, name in enumerate(self.classes):
            correct = int(self.confusion[index, index])
            photos, named = int(self.confusion[index].sum()), int(self.confusion[:, index].sum())
            rows.append(
                {
                    "class": name,
                    "photos": photos,
                    "correct": correct,
                    "recall": correct / photos if photos else None,
                    "precision": correct / named if named else None,
                }
            )
        return rows

    def as_json(self) -> dict[str, Any]:
        return {
            "photos": self.photos,
            "accuracy": self.accuracy,
            "top5": self.top5,
            "loss": self.loss,
            "per_class": self.per_class(),
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    outcomes: Iterable[tuple[npt.NDArray[np.float32], int]], classes: Sequence[str]
) -> Evaluation | None:
    """Figures of `(log_probs (classes,), label)` pairs; None where there are no pairs."""
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    top5_hits = 0
    loss = 0.0
    for log_probs, label in outcomes:
        confusion[label, int(log_probs.argmax())] += 1
        top5_hits += int((log_probs > log_probs[label]).sum() < 5)
        loss -= float(log_probs[label])
    photos = int(confusion.sum())
    return Evaluation(tuple(classes), confusion, top5_hits, loss / photos) if photos else None


def labels_of(
    predictions: Predictions, where: str, csv_path: Path | None
) -> tuple[tuple[str, ...], list[int]]:
    """Class names and each prediction's label: from `csv_path`, else from its group, else, at the root,
    the longest class name that begins the file name.

    Raises:
        DataError: no class names in the file, or a photo whose class cannot be told.
    """
    classes = predictions.classes
    if classes is None:
        raise DataError(
            f"{where}: it holds no class names (the model had none); evaluate a folder with --model"
        )
    if len(classes) != predictions.log_probs.shape[1]:
        raise DataError(f"{where}: {len(classes)} class names for {predictions.log_probs.shape[1]} scores")
    index = {name: position for position, name in enumerate(classes)}
    told = _read_labels(csv_path, index) if csv_path else {}
    by_length = sorted(classes, key=len, reverse=True)
    labels = []
    for name in predictions.names:
        group, _, file = name.rpartition("/")
        if csv_path is not None:
            label = told.get(name)
        elif group:
            folders = group.split("/")
            label = next((index[part] for part in (folders[0], *folders[::-1]) if part in index), None)
        else:
            label = next((index[known] for known in by_length if file.startswith(known)), None)
        if label is None:
            source = (
                f"{csv_path} has no line for it" if csv_path else "neither a group nor its name gives one"
            )
            raise DataError(
                f"{where}: the class of {name!r} is unknown: {source}; give --labels FILE.csv (name,class)"
            )
        labels.append(label)
    return classes, labels


def _read_labels(path: Path, index: dict[str, int]) -> dict[str, int]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV of name,class ({error})") from None
    labels = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or row[1] not in index:
            if number == 1 and row[:2] == ["name", "class"]:
                continue
            raise DataError(
                f"{path}: line {number}: expected name,class with a class of the model, got {row}"
            )
        labels[row[0]] = index[row[1]]
    return labels
