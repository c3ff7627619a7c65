"""Head gradients against finite differences in float64 and against the closed formula."""

import numpy as np
import pytest

from birdsonnx.network.head import split
from birdsonnx.training.gradients import HeadGradients
from tests.network.networks import two_dense
from tests.tiny import FEATURES, tiny_model

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(6, FEATURES)).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 0, 1], np.int64)


def log_probs(x, weights, layers):
    """The head in float64: Dense layers with Relu between them, and log_softmax."""
    for index, layer in enumerate(layers):
        x = x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]
        if index < len(layers) - 1:
            x = np.maximum(x, 0)
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def widened(weights):
    return {name: value.astype(np.float64) for name, value in weights.items()}


def loss_of(weights, layers):
    return -log_probs(X.astype(np.float64), widened(weights), layers)[np.arange(len(X)), LABELS].sum()


def head(model, layers):
    parts = split(model, layers)
    generator = np.random.default_rng(1)
    weights = {
        name: generator.normal(0, 0.3, value.shape).astype(np.float32)
        for name, value in parts.weights.items()
    }
    return HeadGradients(parts.head, parts.weights, threads=1), weights


@pytest.mark.parametrize(
    ("model", "layers"), [(tiny_model(), ["dense"]), (two_dense(), ["hidden", "dense"])], ids=["one", "two"]
)
def test_against_finite_differences(model, layers):
    gradients, weights = head(model, layers)
    loss, found = gradients(X, LABELS, weights)
    assert loss == pytest.approx(loss_of(weights, layers), rel=1e-6)
    step = 1e-5  # in float64: truncation error of the order of 1e-10
    for name, value in weights.items():
        for index in np.random.default_rng(2).integers(0, value.size, 12):
            nudge = np.zeros(value.shape)
            nudge.flat[index] = step
            up, down = (loss_of({**weights, name: value + sign * nudge}, layers) for sign in (1, -1))
            assert found[name].flat[index] == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-5)


def test_one_dense_against_the_formula():
    """The gradient of softmax cross-entropy: (p - onehot), summed through the Dense."""
    gradients, weights = head(tiny_model(), ["dense"])
    _, found = gradients(X, LABELS, weights)
    x, wide = X.astype(np.float64), widened(weights)
    error = np.exp(log_probs(x, wide, ["dense"])) - np.eye(3)[LABELS]
    np.testing.assert_allclose(found["dense/kernel"], x.T @ error, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["dense/bias"], error.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_two_dense_against_the_formula():
    gradients, weights = head(two_dense(), ["hidden", "dense"])
    _, found = gradients(X, LABELS, weights)
    x, wide = X.astype(np.float64), widened(weights)
    hidden = np.maximum(x @ wide["hidden/kernel"] + wide["hidden/bias"], 0)
    error = np.exp(log_probs(x, wide, ["hidden", "dense"])) - np.eye(3)[LABELS]
    back = error @ wide["dense/kernel"].T * (hidden > 0)
    expected = {
        "hidden/kernel": x.T @ back,
        "hidden/bias": back.sum(axis=0),
        "dense/kernel": hidden.T @ error,
        "dense/bias": error.sum(axis=0),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("layers", [["dense"], ["hidden"]])
def test_what_is_not_trained_has_no_gradient(layers):
    gradients, weights = head(two_dense(), layers)
    _, found = gradients(X, LABELS, weights)
    assert set(found) == {f"{layers[0]}/kernel", f"{layers[0]}/bias"}


def test_confident_mistakes_stay_finite():
    gradients, weights = head(tiny_model(), ["dense"])
    bias = np.array([0, 0, 500], np.float32)
    loss, found = gradients(X, np.zeros(6, np.int64), {**weights, "dense/bias": bias})
    assert 6 * 400 < loss < 6 * 600
    np.testing.assert_allclose(found["dense/bias"], [-6, 0, 6], atol=1e-5)


def test_the_sums_of_parts_are_the_sum_of_the_whole():
    gradients, weights = head(two_dense(), ["hidden", "dense"])
    loss, whole = gradients(X, LABELS, weights)
    parts = [gradients(X[part], LABELS[part], weights) for part in (slice(0, 2), slice(2, 6))]
    assert loss == pytest.approx(sum(part[0] for part in parts), rel=1e-6)
    for name, value in whole.items():
        np.testing.assert_allclose(value, sum(part[1][name] for part in parts), rtol=1e-5, atol=1e-6)


def test_no_photos_give_zeros():
    gradients, weights = head(tiny_model(), ["dense"])
    loss, found = gradients(X[:0], LABELS[:0], weights)
    assert loss == 0
    assert all(not value.any() for value in found.values())


@pytest.mark.parametrize(
    ("model", "layers"), [(tiny_model(), ["dense"]), (two_dense(), ["hidden", "dense"])], ids=["one", "two"]
)
def test_forward_pass(model, layers):
    gradients, weights = head(model, layers)
    expected = log_probs(X.astype(np.float64), widened(weights), layers)
    np.testing.assert_allclose(gradients.log_probs(X, weights), expected, rtol=1e-5, atol=1e-5)
