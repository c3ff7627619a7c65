"""The temperature: one number that scores are divided by, so that probabilities mean what they say.

With log-probabilities `z`, the right classes `y` and `b = 1 / T`, the mean negative log-likelihood of
`softmax(b z)` is

    f(b)  = mean(log(sum(exp(b z))) - b z[y])
    f'(b) = mean(E[z] - z[y])        the mean E under softmax(b z)
    f''(b) = mean(E[z^2] - E[z]^2)   never below 0

f is convex: where f' is 0 it is lowest, and f' only grows. Newton's steps find that place, and halving of the
interval in which it lies wherever a step leaves that.
Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are tried."""
STEPS = 100
CLOSE = 1e-10
"""Relative to it, the step of the inverse temperature that is not taken any more."""
ROWS = 4096
"""Photos that are in float64 at a time."""


@dataclass(frozen=True)
class Fit:
    """What was found."""

    temperature: float
    at_bound: bool
    """Whether the likelihood has no end within `LOWEST` and `HIGHEST`."""


def fit(log_probs: LogProbs, labels: Labels) -> Fit:
    """The temperature with the lowest mean negative log-likelihood, in [`LOWEST`, `HIGHEST`]; 1 where none
    changes anything; as `_of_right_ones` says where all photos are named rightly.

    Args:
        log_probs: finite, float32 `[photos, classes]`, of one photo or more.
        labels: index of each photo's right class, int64 `[photos]`.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    inverse = 1.0
    slope, curvature = _derivatives(log_probs, labels, inverse)
    if slope == 0:
        return Fit(1.0, at_bound=False)
    # At the far end the slope can be 0 in floating point alone, as of photos that are all right and sure.
    if slope < 0 and _derivatives(log_probs, labels, high)[0] <= 0:
        return Fit(_of_right_ones(log_probs), at_bound=True)
    if slope > 0 and _derivatives(log_probs, labels, low)[0] >= 0:
        return Fit(HIGHEST, at_bound=True)
    for _ in range(STEPS):
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        newton = inverse - slope / curvature if curvature > 0 else low
        inverse = newton if low < newton < high else (low + high) / 2
        slope, curvature = _derivatives(log_probs, labels, inverse)
        if abs(slope) <= CLOSE * inverse * curvature or high - low <= CLOSE * high:
            break
    return Fit(1 / inverse, at_bound=False)


def _of_right_ones(log_probs: LogProbs) -> float:
    """The temperature where all `n` photos are named rightly: the likelihood asks for ever lower ones, so the
    mean probability of the answers becomes what such photos prove, `(n + 1) / (n + 2)`; 1 where it is as high
    already. Source: Laplace's rule of succession, which J. Platt, "Probabilistic outputs for support vector
    machines", 1999, section 2.2, takes for the same purpose."""
    photos = len(log_probs)
    proved = (photos + 1) / (photos + 2)

    def confidence(inverse: float) -> float:
        return float(answered(log_probs, np.zeros(photos, np.int64), 1 / inverse).probability.mean())

    low, high = 1.0, 1 / LOWEST
    if confidence(low) >= proved:
        return 1.0
    if confidence(high) <= proved:
        return LOWEST
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if confidence(middle) < proved else (low, middle)
    return 2 / (low + high)


def _derivatives(log_probs: LogProbs, labels: Labels, inverse: float) -> tuple[float, float]:
    """`f'` and `f''` at `b`."""
    slope = curvature = 0.0
    for rows in _pieces(len(labels)):
        scores = _scores(log_probs[rows])
        weights = np.exp(inverse * scores)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scores).sum(axis=1)
        right = np.take_along_axis(scores, labels[rows, np.newaxis], axis=1)[:, 0]
        slope += float((mean - right).sum())
        scores -= mean[:, np.newaxis]
        curvature += float((weights * scores**2).sum())
    return slope / len(labels), curvature / len(labels)


def _scores(log_probs: LogProbs) -> Floats:
    """In float64, the largest of each photo 0."""
    scores: Floats = log_probs.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    return scores


def _pieces(photos: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, photos, ROWS))


@dataclass(frozen=True)
class Answered:
    """What is said of photos at a temperature."""

    said: Labels
    """Index of the likeliest class, int64 `[photos]`."""
    probability: Floats
    """Of that class, float64 `[photos]`."""
    label_log_prob: Floats
    """Of the right class, float64 `[photos]`."""


def answered(log_probs: LogProbs, labels: Labels, temperature: float) -> Answered:
    """What `log_softmax(log_probs / temperature)` says. The arguments are those of `fit`."""
    probability, label_log_prob = np.empty(len(labels)), np.empty(len(labels))
    for rows in _pieces(len(labels)):
        scores = _scores(log_probs[rows]) / temperature
        total = np.log(np.exp(scores).sum(axis=1))
        probability[rows] = np.exp(-total)
        label_log_prob[rows] = np.take_along_axis(scores, labels[rows, np.newaxis], axis=1)[:, 0] - total
    return Answered(log_probs.argmax(axis=1).astype(np.int64), probability, label_log_prob)
