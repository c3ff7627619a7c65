"""Closed forms against the recurrences that PyTorch's schedulers step through."""

import pytest

from birdsonnx.config import SGD, Adam, Exponential, Step
from birdsonnx.training.schedules import learning_rate


def rates(schedule, epochs=9):
    settings = SGD(learning_rate=0.4, lr_scheduler=schedule)
    return [learning_rate(settings, epoch) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("make", [SGD, Adam])
def test_every_optimizer_has_schedules(make):
    settings = make(learning_rate=0.1, lr_scheduler=Exponential(gamma=0.5))
    assert [learning_rate(settings, epoch) for epoch in (1, 2, 3)] == [0.1, 0.05, 0.025]


def test_constant():
    assert rates(None) == [0.4] * 9


def test_exponential():
    expected = [0.4]
    while len(expected) < 9:
        expected.append(expected[-1] * 0.7)
    assert rates(Exponential(gamma=0.7)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 3, 20])
def test_step(size):
    expected = [0.4]
    for epoch in range(1, 9):
        expected.append(expected[-1] * (0.5 if epoch % size == 0 else 1))
    assert rates(Step(gamma=0.5, step_size=size)) == pytest.approx(expected)
