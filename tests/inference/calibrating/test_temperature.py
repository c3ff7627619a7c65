"""The fitted temperature against a search of the loss itself, on a grid that grows finer."""

import numpy as np
import pytest

from birdsonnx.inference.calibrating import temperature


def log_softmax(scores):
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss_at(log_probs, labels, at):
    rows = log_softmax(log_probs.astype(np.float64) / at)
    return -rows[np.arange(len(labels)), labels].mean()


def searched(log_probs, labels):
    """Golden section over log T, in 200 steps."""
    low, high = np.log(0.05), np.log(20)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(200):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss_at(log_probs, labels, np.exp(left)) < loss_at(log_probs, labels, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def answers(photos, classes, true, seed=0):
    """Log-probabilities that are right as scores divided by `true` say, and the labels."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 3, (photos, classes))
    chances = np.exp(log_softmax(scores / true))
    labels = np.array([generator.choice(classes, p=row / row.sum()) for row in chances])
    return log_softmax(scores).astype(np.float32), labels


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize(("photos", "classes"), [(400, 3), (5000, 12)])
def test_it_is_where_the_loss_is_lowest(photos, classes, true):
    log_probs, labels = answers(photos, classes, true)
    found = temperature.fit(log_probs, labels)
    assert not found.at_bound
    assert found.temperature == pytest.approx(searched(log_probs, labels), rel=1e-6)
    if photos > 1000:
        assert found.temperature == pytest.approx(true, rel=0.1)
    said = temperature.answered(log_probs, labels, found.temperature)
    assert -said.label_log_prob.mean() == pytest.approx(loss_at(log_probs, labels, found.temperature))
    rows = np.exp(log_softmax(log_probs.astype(np.float64) / found.temperature))
    np.testing.assert_allclose(said.probability, rows.max(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(said.said, log_probs.argmax(axis=1))


def test_a_fit_is_its_own_fit():
    log_probs, labels = answers(500, 5, 3.0)
    found = temperature.fit(log_probs, labels).temperature
    divided = log_softmax(log_probs.astype(np.float64) / found).astype(np.float32)
    assert temperature.fit(divided, labels).temperature == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("photos", [4, 40])
def test_all_right_are_as_sure_as_they_prove(photos):
    log_probs = log_softmax(np.eye(4)[np.arange(photos) % 4]).astype(np.float32)
    found = temperature.fit(log_probs, np.arange(photos) % 4)
    assert found.at_bound
    sure = 1 / (1 + 3 * np.exp(-1 / found.temperature))
    assert sure == pytest.approx((photos + 1) / (photos + 2), abs=1e-6)


@pytest.mark.parametrize("size", [9.0, 100.0])
def test_all_right_and_sure_stay_as_they_are(size):
    log_probs = log_softmax(np.eye(4) * size).astype(np.float32)
    assert temperature.fit(log_probs, np.arange(4)) == temperature.Fit(1.0, at_bound=True)


def test_all_wrong_ends_at_the_other_bound():
    log_probs = log_softmax(np.eye(4) * 9).astype(np.float32)
    assert temperature.fit(log_probs, (np.arange(4) + 1) % 4) == temperature.Fit(20.0, at_bound=True)


@pytest.mark.parametrize(
    "log_probs", [np.zeros((3, 1)), np.full((5, 4), -np.log(4)), np.array([[0.0, -1e30], [0.0, -1e30]])]
)
def test_what_no_temperature_changes_keeps_1(log_probs):
    found = temperature.fit(log_probs.astype(np.float32), np.zeros(len(log_probs), np.int64))
    assert found == temperature.Fit(1.0, at_bound=False)


def test_one_photo():
    assert temperature.fit(np.float32([[-0.1, -2.4]]), np.array([0])).at_bound
    assert temperature.fit(np.float32([[-0.1, -2.4]]), np.array([1])) == temperature.Fit(20.0, True)


def test_huge_scores_do_not_overflow():
    log_probs = np.float32([[0, -1e38], [-3e38, 0], [0, -1e30], [-2, -0.1]])
    with np.errstate(all="raise", under="ignore"):
        found = temperature.fit(log_probs, np.array([0, 1, 1, 0]))
        temperature.answered(log_probs, np.array([0, 1, 1, 0]), found.temperature)
    assert found.temperature == 20
