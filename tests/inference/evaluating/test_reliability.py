"""Intervals and calibration against what they are by definition."""

from math import sqrt

import numpy as np
import pytest

from birdsonnx.inference.evaluating.reliability import reliability, wilson_interval


def bound_by_bisection(right: int, photos: int, inside: float, outside: float, z: float = 1.959963984540054):
    """The share at which what was seen is `z` standard deviations away: Wilson's interval by definition,
    found without his formula."""
    seen = right / photos
    for _ in range(200):
        share = (inside + outside) / 2
        if abs(seen - share) <= z * sqrt(share * (1 - share) / photos):
            inside = share
        else:
            outside = share
    return inside


@pytest.mark.parametrize(("right", "photos"), [(234, 240), (1, 240), (7, 15), (3, 3), (0, 4), (9000, 10_000)])
def test_the_interval_ends_where_the_definition_says(right, photos):
    low, high = wilson_interval(right, photos)
    seen = right / photos
    assert low == pytest.approx(bound_by_bisection(right, photos, seen, 0.0), abs=1e-9)
    assert high == pytest.approx(bound_by_bisection(right, photos, seen, 1.0), abs=1e-9)
    assert 0 <= low <= seen <= high <= 1


def test_nothing_is_known_without_photos():
    assert wilson_interval(0, 0) == (0, 1)


def test_the_calibration_error_is_that_of_a_plain_loop():
    generator = np.random.default_rng(3)
    confidence = generator.uniform(0.2, 1, 500)
    right = generator.uniform(size=500) < confidence**2
    error = excess = 0.0
    for number in range(15):
        chosen = [each for each in range(500) if number / 15 < confidence[each] <= (number + 1) / 15]
        if chosen:
            gap = np.mean([confidence[each] for each in chosen]) - np.mean([right[each] for each in chosen])
            error += len(chosen) / 500 * abs(gap)
            excess += len(chosen) / 500 * gap
    found = reliability(confidence, right)
    assert found.expected_error == pytest.approx(error)
    assert found.excess == pytest.approx(excess)
    assert found.excess > 0.05  # of a model that is surer than it is right
    assert sum(each.photos for each in found.bins) == 500


def test_certain_answers_are_in_the_last_bin_and_impossible_ones_in_the_first():
    found = reliability(np.array([1.0, 0.0]), np.array([True, False]))
    assert [each.photos for each in found.bins] == [1, *[0] * 13, 1]
    assert found.expected_error == 0


def test_a_calibration_error_of_nothing_is_0():
    assert reliability(np.array([]), np.array([], bool)).expected_error == 0
