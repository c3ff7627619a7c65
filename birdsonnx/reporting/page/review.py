"""Predictions of which nobody says what is right, to be looked through: by class, least certain first."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.inference.evaluating.answers import Answers
from birdsonnx.reporting.printable import printable

BESIDE_NAME = 25
"""Bytes of a photo in the list, beside its name: two classes, two probabilities, commas."""

AROUND = 20_000
"""Bytes that thumbnails bring with them: quotes and commas, and `<img>` instead of words."""

MOST_ROW_BYTES = 2_000_000
"""Of the list of photos in the page; of more than these the least certain ones are listed."""

WITHOUT_SCRIPT = 48
"""Photos that are shown where JavaScript is off: the least certain ones."""


@dataclass(frozen=True)
class ClassCount:
    name: str
    photos: int
    lowest: float
    """Probability of the least certain one."""
    median: float


@dataclass(frozen=True)
class ReviewCard:
    row: int
    """Place in `Review.rows`."""
    name: str
    thumbnail: str
    said: str
    probability: float
    second: str
    second_probability: float


@dataclass(frozen=True)
class Review:
    """All that the page says of predictions."""

    where: str
    photos: int
    listed: int
    thumbnails: int
    classes: tuple[ClassCount, ...]
    cards: tuple[ReviewCard, ...]
    rows: dict[str, Any]
    """For the script, in columns: `classes`; `names`, `said`, `p`, `second`, `q` (probabilities in ten
    thousandths) of each photo; `thumbnails` of the first ones, empty for those in `cards`."""


def order_of(answers: Answers) -> list[int]:
    """Places of photos: the least certain one of each class, then the next of each, and so on; of those that
    have the same turn the least certain first."""
    said, probability = answers.said, answers.probability
    by_class = np.lexsort((probability, said))
    begins = np.searchsorted(said[by_class], said[by_class], "left")
    turn = np.empty(len(said), np.int64)
    turn[by_class] = np.arange(len(said)) - begins
    return [int(index) for index in np.lexsort((probability, turn))]


def listed(answers: Answers) -> list[int]:
    """As many photos, in this order, as the page can list."""
    order = order_of(answers)
    left = MOST_ROW_BYTES
    for number, index in enumerate(order):
        left -= len(htmlsafe(answers.names[index])) + BESIDE_NAME
        if left < 0:
            return order[:number]
    return order


def htmlsafe(name: str) -> str:
    """A name as JSON inside of HTML has it."""
    return re.sub("[<>&']", r"\\u0000", json.dumps(printable(name)))


def review(
    answers: Answers,
    class_names: Sequence[str],
    where: str,
    order: Sequence[int],
    thumbnails: Sequence[str],
) -> Review:
    """Args:
    order: places in `answers` of the photos that are listed, those first that are to have thumbnails.
    thumbnails: of the first ones of these.
    """
    names = [printable(name) for name in class_names]
    chosen = [answers[index] for index in order]
    certainty = np.array([each.probability for each in chosen])
    first = np.argsort(certainty, kind="stable")[:WITHOUT_SCRIPT].tolist()
    cards = tuple(
        ReviewCard(
            row,
            printable(chosen[row].name),
            thumbnails[row] if row < len(thumbnails) else "",
            names[chosen[row].said],
            chosen[row].probability,
            _name_of(chosen[row].second, names),
            chosen[row].second_probability,
        )
        for row in first
    )
    in_cards = {card.row for card in cards if card.thumbnail}
    rows = {
        "classes": names,
        "names": [printable(each.name) for each in chosen],
        "said": [each.said for each in chosen],
        "p": [round(each.probability * 1e4) for each in chosen],
        "second": [-1 if each.second is None else each.second for each in chosen],
        "q": [round(each.second_probability * 1e4) for each in chosen],
        "thumbnails": ["" if row in in_cards else picture for row, picture in enumerate(thumbnails)],
    }
    made = sum(1 for picture in thumbnails if picture)
    counts = _counts(answers.said, answers.probability, names)
    return Review(where, len(answers), len(chosen), made, counts, cards, rows)


def _name_of(index: int | None, names: Sequence[str]) -> str:
    return "" if index is None else names[index]


def _counts(
    said: npt.NDArray[np.int64], probability: npt.NDArray[np.float64], names: Sequence[str]
) -> tuple[ClassCount, ...]:
    """Of each class that was named, in the order of their names."""
    classes, begins = np.unique(np.sort(said), return_index=True)
    parts = np.split(probability[np.argsort(said, kind="stable")], begins[1:])
    found = (
        ClassCount(names[index], len(values), float(values.min()), float(np.median(values)))
        for index, values in zip(classes.tolist(), parts, strict=True)
    )
    return tuple(sorted(found, key=lambda each: each.name))
