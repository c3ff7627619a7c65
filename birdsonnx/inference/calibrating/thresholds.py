"""From which probability on an answer is to be believed, class by class.

Of the photos that were named a class, those with a probability of a threshold or more are named still; the
threshold is the least one for which a wanted share of these is right. A few photos prove nothing: five of
five are right by chance often enough. So a set of fewer than `FEWEST` is never taken for a proof: a class
that fewer photos were named gets the threshold that all photos together have.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.inference.calibrating.temperature import Answered, Labels

FEWEST = 10
"""Photos that are some evidence. Of 10 that are all right, the share to expect of others is still only 0.72
or more with 95 % certainty (Wilson's interval)."""
SAME = 1e-5
"""Probabilities that are as close as this count as one: a float32 network rounds them its own way."""
NEVER = 1.0
"""The threshold of a class that is never named: no photos were right often enough."""


@dataclass(frozen=True)
class Thresholds:
    """Those of a model, and what they do to the photos that they were fitted on."""

    precision: float
    """The share of right answers that was wanted."""
    values: tuple[float, ...]
    """In the order of the classes."""
    pooled: float
    """That of all photos together."""
    own: int
    """Classes with a threshold of their own photos."""
    never: int
    """Classes that are never named."""
    kept: float
    """Share of the photos that are named still."""
    right: float | None
    """Share of right ones among these; None where there are none."""

    def as_json(self) -> dict[str, object]:
        """All but the values."""
        return {
            "precision": self.precision,
            "pooled": self.pooled,
            "classes_with_own": self.own,
            "classes_never_named": self.never,
            "kept": self.kept,
            "right": self.right,
        }

    def as_metadata(self) -> dict[str, object]:
        """What a model's `birdsonnx.thresholds` hold."""
        return {"precision": self.precision, "values": list(self.values), "pooled": self.pooled}


def fit(answers: Answered, labels: Labels, classes: int, precision: float) -> Thresholds:
    """Thresholds of so many classes for a share of right answers, from photos with known labels.

    Args:
        answers: of a calibrated model.
        labels: index of each photo's right class, int64 `[photos]`.
        precision: above 0, at most 1.
    """
    said, probability = answers.said, answers.probability
    right = said == labels
    pooled = threshold(probability, right, precision)
    values = np.full(classes, NEVER if pooled is None else pooled)
    own = 0
    for label, photos in enumerate(_by_class(said, classes)):
        if len(photos) >= FEWEST:
            own += 1
            found = threshold(probability[photos], right[photos], precision)
            values[label] = NEVER if found is None else found
    kept = (probability >= values[said]) & (values[said] < NEVER)
    return Thresholds(
        precision,
        tuple(values.tolist()),
        NEVER if pooled is None else pooled,
        own,
        int((values == NEVER).sum()),
        float(kept.mean()),
        float(right[kept].mean()) if kept.any() else None,
    )


def threshold(
    probability: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], precision: float
) -> float | None:
    """The least probability for which `precision` of the photos with as much or more are right; None where
    no `FEWEST` photos or more have that share.

    It stands a little below the probability of a photo, so that this one is named whichever way it is
    rounded.
    """
    order = np.argsort(-probability, kind="stable")
    sorted_down, hits = probability[order], right[order].cumsum()
    counts = np.arange(1, len(order) + 1)
    # Only where the next one is less by more than rounding can a line be drawn.
    ends = np.append(sorted_down[:-1] - sorted_down[1:] > SAME, True)
    # As whole numbers of photos: 19 of 20 are 0.95, whichever way 0.95 is rounded.
    enough = hits >= np.ceil(precision * counts - 1e-9)
    places = np.flatnonzero(ends & enough & (counts >= FEWEST))
    return max(0.0, round(float(sorted_down[places[-1]]) - SAME / 2, 7)) if len(places) else None


def _by_class(said: Labels, classes: int) -> list[Labels]:
    """Positions of the photos that were named each class."""
    order = np.argsort(said, kind="stable")
    return np.split(order, np.searchsorted(said[order], np.arange(1, classes)))
