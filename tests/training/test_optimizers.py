"""SGD and Adam against the algorithm boxes of PyTorch's documentation, written down here in float64."""

import numpy as np
import pytest

from birdsonnx.config import SGD, Adam
from birdsonnx.training.optimizers import build

STEPS, SIZE = 20, 50
START = np.random.default_rng(0).normal(size=SIZE)
# They fade, so that the largest second moment of amsgrad is not always the newest.
GRADIENTS = np.random.default_rng(1).normal(size=(STEPS, SIZE)) * np.geomspace(3, 0.03, STEPS)[:, None]


def sgd(rate, weight_decay=0.0, momentum=0.0, dampening=0.0, nesterov=False):
    theta, buffer = START.copy(), None
    for gradient in GRADIENTS:
        g = gradient + weight_decay * theta
        if momentum:
            buffer = g.copy() if buffer is None else momentum * buffer + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        theta = theta - rate * g
    return theta


def adam(rate, weight_decay=0.0, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False):
    theta, m, v, v_max = START.copy(), np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE)
    for t, gradient in enumerate(GRADIENTS, 1):
        g = gradient + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_max = np.maximum(v_max, v)
        v_hat = (v_max if amsgrad else v) / (1 - beta2**t)
        theta = theta - rate * (m / (1 - beta1**t)) / (np.sqrt(v_hat) + eps)
    return theta


def after_20_steps(settings):
    optimizer = build(settings, SIZE)
    weights = START.astype(np.float32)
    for gradient in GRADIENTS:
        optimizer.step(weights, gradient.astype(np.float32), settings.learning_rate)
    assert optimizer.steps == STEPS
    return weights


def assert_close(found, expected):
    moved = np.linalg.norm(expected - START)
    assert moved > 0.01 * np.linalg.norm(START)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) <= 1e-6
    assert np.linalg.norm(found - expected) / moved <= 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ],
    ids=str,
)
def test_sgd(options):
    assert_close(after_20_steps(SGD(learning_rate=0.05, **options)), sgd(0.05, **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"amsgrad": True},
        {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3, "amsgrad": True},
    ],
    ids=str,
)
def test_adam(options):
    assert_close(after_20_steps(Adam(learning_rate=0.05, **options)), adam(0.05, **options))


@pytest.mark.parametrize("make", [SGD, Adam])
def test_the_rate_of_each_step_is_the_one_given(make):
    """The schedule's rate counts, not the config's."""
    found = []
    for settings in (make(learning_rate=0.05), make(learning_rate=7)):
        weights = START.astype(np.float32)
        optimizer = build(settings, SIZE)
        for gradient, rate in zip(GRADIENTS, np.linspace(0.1, 0, STEPS), strict=True):
            optimizer.step(weights, gradient.astype(np.float32), rate)
        found.append(weights)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_rate_of_zero_changes_nothing():
    for settings in (SGD(momentum=0.9, weight_decay=0.1), Adam(weight_decay=0.1)):
        weights = START.astype(np.float32)
        build(settings, SIZE).step(weights, GRADIENTS[0].astype(np.float32), 0)
        np.testing.assert_array_equal(weights, START.astype(np.float32))


@pytest.mark.parametrize("settings", [SGD(momentum=0.9), Adam(amsgrad=True)])
def test_the_state_is_all_that_resuming_needs(settings):
    whole = after_20_steps(settings)
    weights = START.astype(np.float32)
    first, second = build(settings, SIZE), build(settings, SIZE)
    for gradient in GRADIENTS[:7]:
        first.step(weights, gradient.astype(np.float32), settings.learning_rate)
    for name, values in first.state.items():
        second.state[name][...] = values
    second.steps = first.steps
    for gradient in GRADIENTS[7:]:
        second.step(weights, gradient.astype(np.float32), settings.learning_rate)
    np.testing.assert_array_equal(weights, whole)
