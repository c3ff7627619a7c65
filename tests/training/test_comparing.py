"""The front of a comparison, against its definition as a plain loop."""

import numpy as np
import pytest

from birdsonnx.training.comparing import on_front


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_beats(seed):
    points = [tuple(map(float, point)) for point in np.random.default_rng(seed).integers(0, 6, (12, 2))]
    found = on_front(points)
    for point, is_on in zip(points, found, strict=True):
        beaten = False
        for accuracy, rate in points:
            as_good = accuracy >= point[0] and rate >= point[1]
            beaten |= as_good and (accuracy > point[0] or rate > point[1])
        assert is_on == (not beaten)
    assert any(found)


def test_of_equal_accuracy_the_fastest_is_on_the_front():
    points = [(0.9, 10), (0.9, 20), (0.8, 20), (0.95, 5), (0.9, 20)]
    assert on_front(points) == [False, True, False, True, True]
