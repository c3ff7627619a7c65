"""How far figures can be trusted: the interval of a share, and whether probabilities mean what they say."""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054
"""The normal distribution's quantile of 0.975: an interval of 95 %."""

BINS = 15
"""Of the probabilities, as in the paper that brought the expected calibration error to networks."""


def wilson_interval(right: int, photos: int, z: float = Z_95) -> tuple[float, float]:
    """The 95 % interval of the share that `right` of `photos` is a sample of; `(0, 1)` of no photos.

    Unlike `p ± 1.96 √(p(1 - p)/n)` it stays within 0 and 1, and is honest where all or few photos are right.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22 (1927), 209-212.
    """
    if not photos:
        return 0.0, 1.0
    share = right / photos
    divisor = 1 + z * z / photos
    centre = (share + z * z / (2 * photos)) / divisor
    half = z / divisor * sqrt(share * (1 - share) / photos + z * z / (4 * photos * photos))
    low = 0.0 if right == 0 else centre - half  # exactly so; in floating point it would miss by rounding
    high = 1.0 if right == photos else centre + half
    return low, high


@dataclass(frozen=True)
class Bin:
    """The photos whose answer was given a probability in `(low, high]`."""

    low: float
    high: float
    photos: int
    accuracy: float
    """Share of right answers; 0 where there are no photos."""
    confidence: float
    """Mean probability of the answers; 0 where there are no photos."""


@dataclass(frozen=True)
class Reliability:
    """Whether of the answers with probability 0.8 eight of ten are right."""

    bins: tuple[Bin, ...]

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean distance of accuracy and confidence, each bin weighed by
        its photos. Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
        """
        photos = sum(each.photos for each in self.bins)
        distances = (each.photos * abs(each.accuracy - each.confidence) for each in self.bins)
        return sum(distances) / photos if photos else 0.0

    @property
    def excess(self) -> float:
        """Mean probability of the answers minus their accuracy: above 0 the model is too sure of itself."""
        photos = sum(each.photos for each in self.bins)
        distances = (each.photos * (each.confidence - each.accuracy) for each in self.bins)
        return sum(distances) / photos if photos else 0.0


def reliability(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Sort answers by their probability into bins of equal width.

    Args:
        confidence: the probability of each answer, float64 `[photos]`, in [0, 1].
        right: whether it was the right one, bool `[photos]`.
        bins: how many.
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    photos = np.bincount(place, minlength=bins)
    return _of_sums(photos, np.bincount(place, right, bins), np.bincount(place, confidence, bins))


class Sums:
    """What `reliability` needs, summed up as the answers come, without a number for each photo.

    In lists: an addition to an element of an array takes 10 times as long.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._photos, self._right, self._confidence = [0] * bins, [0] * bins, [0.0] * bins

    def add(self, confidence: float, right: bool) -> None:
        """Add one answer, of a probability in [0, 1]."""
        bins = len(self._photos)
        place = min(max(ceil(confidence * bins) - 1, 0), bins - 1)
        self._photos[place] += 1
        self._right[place] += right
        self._confidence[place] += confidence

    def reliability(self) -> Reliability:
        """Of all answers so far."""
        return _of_sums(*map(np.array, (self._photos, self._right, self._confidence)))


def _of_sums(
    photos: npt.NDArray[np.int64], right: npt.NDArray[Any], confidence: npt.NDArray[Any]
) -> Reliability:
    edges = np.linspace(0, 1, len(photos) + 1)
    divisor = np.maximum(photos, 1)
    columns = (edges[:-1], edges[1:], photos, right / divisor, confidence / divisor)
    return Reliability(tuple(Bin(*row) for row in zip(*(each.tolist() for each in columns), strict=True)))
