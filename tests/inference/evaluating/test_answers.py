"""What is kept of each photo's answer, against sorting the log-probabilities themselves."""

import numpy as np
import pytest

from birdsonnx.inference.evaluating.answers import Answers

CLASSES = 6


@pytest.fixture
def log_probs():
    scores = np.random.default_rng(0).normal(0, 2, (40, CLASSES))
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


@pytest.fixture
def labels(log_probs):
    return [int(row.argsort()[-1 - (number % 3 == 0)]) for number, row in enumerate(log_probs)]


@pytest.fixture
def answers(log_probs, labels):
    kept = Answers()
    for number, (row, label) in enumerate(zip(log_probs, labels, strict=True)):
        kept.add(f"{number}.jpg", row, label)
    return kept


def test_each_photo_has_its_two_likeliest_classes(answers, log_probs, labels):
    for number, row in enumerate(log_probs):
        second, first = row.argsort()[-2:]
        kept = answers[number]
        assert (kept.said, kept.second, kept.label) == (first, second, labels[number])
        values = (kept.probability, kept.second_probability, kept.label_probability)
        assert values == pytest.approx(np.exp(row[[first, second, labels[number]]]), rel=1e-6)


def test_the_worst_mistakes_come_first(answers, log_probs, labels):
    wrong = [number for number, row in enumerate(log_probs) if row.argmax() != labels[number]]
    assert len(wrong) == 14
    expected = sorted(wrong, key=lambda number: log_probs[number][labels[number]])
    assert [each.name for each in answers.worst(5)] == [f"{number}.jpg" for number in expected[:5]]
    assert len(answers.worst(99)) == 14


def test_the_least_certain_come_first_right_or_wrong(answers, log_probs):
    expected = sorted(range(40), key=lambda number: log_probs[number].max())
    assert [each.name for each in answers.least_certain(7)] == [f"{number}.jpg" for number in expected[:7]]


def test_a_photo_without_a_label_is_neither_right_nor_labelled(log_probs):
    kept = Answers()
    kept.add("a.jpg", log_probs[0])
    assert (kept[0].label, kept.right.tolist()) == (None, [False])


def test_one_class_has_no_second():
    kept = Answers()
    kept.add("a.jpg", np.zeros(1, np.float32))
    assert (kept[0].second, kept[0].second_probability, kept[0].probability) == (None, 0, 1)
