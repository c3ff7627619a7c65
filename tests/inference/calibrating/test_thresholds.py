"""Thresholds against a loop over every photo's probability."""

import numpy as np
import pytest

from birdsonnx.inference.calibrating.temperature import Answered
from birdsonnx.inference.calibrating.thresholds import FEWEST, NEVER, SAME, fit, threshold


def by_loop(probability, right, precision):
    """The least probability of a photo from which on enough are right."""
    found = None
    for least in sorted(probability, reverse=True):
        hits = [bool(each) for chance, each in zip(probability, right, strict=True) if chance >= least]
        if len(hits) >= FEWEST and sum(hits) / len(hits) >= precision - 1e-12:
            found = least
    return found


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95, 1.0])
def test_it_is_what_a_loop_finds(seed, precision):
    generator = np.random.default_rng(seed)
    probability = np.round(generator.uniform(0.3, 1, 60), 2)  # many of them tied
    right = generator.uniform(size=60) < probability**0.3
    found, wanted = threshold(probability, right, precision), by_loop(probability, right, precision)
    assert (found is None) == (wanted is None)
    if found is not None:
        assert found == pytest.approx(wanted, abs=SAME)
        kept = probability >= found
        assert right[kept].mean() >= precision


def test_what_is_as_close_as_rounding_is_tied():
    probability = np.array([0.9] * 9 + [0.9 - SAME / 10] * 3)
    right = np.array([True] * 9 + [False] * 3)
    assert threshold(probability, right, 0.8) is None  # 9 of 12, never 9 of 9
    assert threshold(probability, right, 0.75) < 0.9 - SAME / 10


def test_a_class_of_few_answers_takes_that_of_all():
    said = np.array([0] * 40 + [1] * 9 + [2] * 20)
    labels = said.copy()
    labels[30:40] = 1  # of class 0 the lowest ten are wrong
    labels[-20:] = 0  # of class 2 all are
    probability = np.concatenate([np.linspace(0.99, 0.6, 40), np.linspace(0.95, 0.9, 9), np.full(20, 0.3)])
    found = fit(Answered(said, probability, np.zeros(69)), labels, 4, 0.9)
    assert found.values[0] == pytest.approx(by_loop(probability[:40], (labels == said)[:40], 0.9), abs=SAME)
    assert found.pooled == pytest.approx(by_loop(probability, labels == said, 0.9), abs=SAME)
    assert found.values[1] == found.values[3] == found.pooled
    assert found.values[2] == NEVER
    assert (found.own, found.never) == (2, 1)
    kept = (probability >= np.array(found.values)[said]) & (said != 2)
    assert found.kept == kept.mean()
    assert found.right == (labels == said)[kept].mean()


def test_no_photo_is_enough():
    found = fit(Answered(np.array([0]), np.array([1.0]), np.zeros(1)), np.array([0]), 2, 0.9)
    assert found.values == (NEVER, NEVER)
    assert (found.kept, found.right) == (0, None)


def test_a_probability_of_1_is_below_never():
    found = fit(Answered(np.zeros(20, int), np.ones(20), np.zeros(20)), np.zeros(20, int), 1, 1.0)
    assert found.values[0] < 1
    assert found.kept == 1
