"""Fitting the output `known`, and measuring it, against loops."""

from itertools import pairwise

import numpy as np
import pytest

from birdsonnx.inference.calibrating.knowing import FEW, Means, fit, threshold_of
from birdsonnx.inference.evaluating.unknown import Unknown, auroc

DIRECTIONS = np.eye(3, 5, dtype=np.float32)


def log_probs(count: int, seed: int = 0) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0, 2, (count, 3))
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.95, 0.99, 1.0, 0.001])
@pytest.mark.parametrize("count", [1, 2, 7, 20, 101])
def test_the_threshold_keeps_the_share_and_hardly_more(keep, count):
    values = np.random.default_rng(count).normal(size=count)
    threshold = threshold_of(values, keep)
    kept = sum(value >= threshold for value in values)
    fewest = next(number for number in range(count + 1) if number / count >= keep - 1e-12)
    assert kept == max(fewest, 1)
    ordered = sorted(values)
    gaps = [above - below for below, above in pairwise(ordered)]
    nearest = min((abs(value - threshold) for value in values), default=1)
    assert nearest >= min([*gaps, 1e-3]) / 2 - 1e-12  # no photo hangs on a rounding


def test_equal_values_stay_together():
    assert threshold_of(np.array([1.0, 1.0, 1.0, 2.0]), 0.75) < 1
    assert threshold_of(np.array([3.0] * 5), 0.5) < 3


def test_a_standard_deviation_of_the_likeness_counts_twice():
    scores = log_probs(60)
    likeness = np.random.default_rng(1).uniform(0.8, 1, 60).astype(np.float32)
    found = fit(likeness, scores, Means(DIRECTIONS, 30, []), 0.9)
    largest = [max(float(value) for value in row) for row in scores]
    known = [
        (top - np.mean(largest)) / np.std(largest) + 2 * (alike - np.mean(likeness)) / np.std(likeness)
        for top, alike in zip(largest, likeness.astype(np.float64), strict=True)
    ]
    by_weights = [
        found.weights.probability * top + found.weights.likeness * alike + found.weights.offset
        for top, alike in zip(largest, likeness.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(by_weights, known, rtol=1e-4, atol=1e-4)
    assert found.kept == sum(value >= found.threshold for value in known) / 60 == 0.9
    assert found.as_json()["training_photos"] == 30
    assert found.notes() == []


def test_photos_that_are_all_alike_give_finite_weights():
    same = np.repeat(log_probs(1), 4, axis=0)
    found = fit(np.ones(4, np.float32), same, Means(DIRECTIONS, 3, []), 0.95)
    assert found.weights.probability == 10
    assert found.weights.likeness == 2000
    assert found.kept == 1
    assert f"{FEW} or more" in found.notes()[0]


def test_without_features_the_probability_decides_alone():
    found = fit(None, log_probs(50), Means(None, 0, []), 0.95)
    assert found.weights.likeness == 0
    assert found.score == "largest probability"
    assert "no last linear layer" in found.notes()[0]


@pytest.mark.parametrize("seed", range(4))
def test_auroc_is_the_share_of_pairs(seed):
    generator = np.random.default_rng(seed)
    known, unknown = (
        generator.integers(0, 6, size).astype(float) + shift for size, shift in ((9, 1), (7, 0))
    )
    pairs = [(a > b) + (a == b) / 2 for a in known for b in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert auroc(np.array([2.0]), np.array([1.0])) == 1
    assert auroc(np.array([1.0]), np.array([1.0])) == 0.5


def test_figures_that_are_not_there_are_dashes():
    assert "AUROC - against 0 photos" in Unknown(0, None, 1.5, None, 0.5).line()
