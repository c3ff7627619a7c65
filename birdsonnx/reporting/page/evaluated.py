"""How right a model is, as the page shows it: figures, matrix, classes, photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.inference.evaluating.answers import Answered, Answers
from birdsonnx.inference.evaluating.confusion import Confusion
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.inference.evaluating.reliability import Reliability, reliability, wilson_interval
from birdsonnx.reporting.page.charts import Chart, reliability_chart
from birdsonnx.reporting.printable import printable

MOST_IN_TABLE = 24
"""Classes of a matrix that is written out, with names and numbers: what fits the width of a page."""

MOST_ROWS = 2000
"""Classes of the table; of more than these, those with the most mistakes."""

MOST_PAIRS = 100
MOST_CELLS = 20_000
"""Mistakes that the drawn matrix knows."""

WORST, UNCERTAIN = 60, 36
"""Photos shown."""

SHADES = 10


@dataclass(frozen=True)
class Cell:
    """One number of the matrix."""

    count: int
    shade: int
    """Share of the row's photos in tenths, rounded up; 0 where there are none."""


@dataclass(frozen=True)
class MatrixTable:
    """The matrix written out: rows are what photos show, columns what was said."""

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_whole: bool
    """Whether it has all classes."""


@dataclass(frozen=True)
class MatrixDrawing:
    """The whole matrix for a canvas."""

    names: tuple[str, ...]
    right: tuple[int, ...]
    """Photos of each class that were named right."""
    shown: tuple[int, ...]
    """Photos of each class."""
    mistakes: tuple[tuple[int, int, int], ...]
    """`(count, label, named)`."""


@dataclass(frozen=True)
class Pair:
    """A class that was taken for another one."""

    label: str
    named: str
    count: int
    of: int
    """Photos of the class."""


@dataclass(frozen=True)
class ClassRow:
    name: str
    photos: int
    right: int
    recall: float | None
    interval: tuple[float, float]
    precision: float | None
    f1: float | None
    taken_for: str
    """The class that it was most often taken for, and how often."""


@dataclass(frozen=True)
class PhotoCard:
    """One photo, with what was said and what is right."""

    name: str
    thumbnail: str
    said: str
    probability: float
    label: str
    label_probability: float
    second: str
    second_probability: float

    @property
    def is_right(self) -> bool:
        return self.said == self.label


@dataclass(frozen=True)
class Evaluated:
    """All that the page says of a labelled set of photos."""

    where: str
    photos: int
    right: int
    accuracy: float
    interval: tuple[float, float]
    macro_accuracy: float
    macro_f1: float
    top5: float
    loss: float
    classes: int
    reliability: Reliability
    reliability_chart: Chart
    matrix: MatrixTable
    drawing: MatrixDrawing | None
    """Where the matrix is too large to be written out."""
    pairs: tuple[Pair, ...]
    pairs_in_all: int
    rows: tuple[ClassRow, ...]
    worst: tuple[PhotoCard, ...]
    uncertain: tuple[PhotoCard, ...]
    seconds: float | None
    engine: str | None

    @property
    def wrong(self) -> int:
        return self.photos - self.right


def evaluated(found: Evaluation, answers: Answers, where: str, thumbnails: "dict[str, str]") -> Evaluated:
    """Args:
    where: the photos, as the page calls them.
    thumbnails: by the names of photos.
    """
    names = tuple(printable(name) for name in found.classes)
    confusion = found.confusion
    mistakes = confusion.mistakes()
    shown = confusion.shown.tolist()
    right = int(confusion.right.sum())
    trust = reliability(answers.probability, answers.right)

    def cards(chosen: Sequence[Answered]) -> tuple[PhotoCard, ...]:
        return tuple(_card(each, names, thumbnails.get(each.name, "")) for each in chosen)

    return Evaluated(
        where=where,
        photos=found.photos,
        right=right,
        accuracy=found.accuracy,
        interval=found.accuracy_interval,
        macro_accuracy=found.macro_accuracy,
        macro_f1=found.macro_f1,
        top5=found.top5,
        loss=found.loss,
        classes=len(names),
        reliability=trust,
        reliability_chart=reliability_chart(trust),
        matrix=_table(confusion, names, mistakes),
        drawing=_drawing(confusion, names, mistakes) if len(names) > MOST_IN_TABLE else None,
        pairs=tuple(
            Pair(names[label], names[named], count, shown[label])
            for count, label, named in mistakes[:MOST_PAIRS]
        ),
        pairs_in_all=len(mistakes),
        rows=_rows(found, names, mistakes),
        worst=cards(answers.worst(WORST)),
        uncertain=cards(answers.least_certain(UNCERTAIN)),
        seconds=found.seconds,
        engine=found.engine,
    )


def _table(
    confusion: Confusion, names: tuple[str, ...], mistakes: Sequence[tuple[int, int, int]]
) -> MatrixTable:
    photos = confusion.shown
    is_whole = len(names) <= MOST_IN_TABLE
    if not is_whole:
        chosen = _of_frequent(mistakes)
        confusion, photos = confusion.among(chosen), photos[chosen]
        names = tuple(names[index] for index in chosen)
    rows = [
        tuple(Cell(count, -(-count * SHADES // of) if count else 0) for count in row)
        for row, of in zip(confusion.matrix().tolist(), photos.tolist(), strict=True)
    ]
    return MatrixTable(names, tuple(rows), is_whole)


def _of_frequent(mistakes: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.int64]:
    """The classes of the most frequent mistakes, rising indices: so both sides of each are in the table."""
    chosen: set[int] = set()
    for _, label, named in mistakes:
        if len(chosen | {label, named}) > MOST_IN_TABLE:
            break
        chosen |= {label, named}
    return np.array(sorted(chosen), np.int64)


def _drawing(
    confusion: Confusion, names: tuple[str, ...], mistakes: list[tuple[int, int, int]]
) -> MatrixDrawing:
    right, shown = tuple(confusion.right.tolist()), tuple(confusion.shown.tolist())
    return MatrixDrawing(names, right, shown, tuple(mistakes[:MOST_CELLS]))


def _rows(
    found: Evaluation, names: tuple[str, ...], mistakes: list[tuple[int, int, int]]
) -> tuple[ClassRow, ...]:
    """Of each class, those first of which the smallest share was named right."""
    first: dict[int, tuple[int, int]] = {}
    for count, label, named in mistakes:  # the most frequent first
        first.setdefault(label, (count, named))
    rows = []
    for index, entry in enumerate(found.per_class()):
        count, named = first.get(index, (0, 0))
        rows.append(
            ClassRow(
                names[index],
                entry["photos"],
                entry["correct"],
                entry["recall"],
                wilson_interval(entry["correct"], entry["photos"]),
                entry["precision"],
                entry["f1"],
                f"{names[named]} ({count})" if count else "",
            )
        )
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda row: (row.right - row.photos, row.name))
        rows = rows[:MOST_ROWS]
    return tuple(sorted(rows, key=lambda row: (2.0 if row.recall is None else row.recall, row.name)))


def _card(photo: Answered, names: tuple[str, ...], thumbnail: str) -> PhotoCard:
    assert photo.label is not None
    return PhotoCard(
        printable(photo.name),
        thumbnail,
        names[photo.said],
        photo.probability,
        names[photo.label],
        photo.label_probability,
        "" if photo.second is None else names[photo.second],
        photo.second_probability,
    )
