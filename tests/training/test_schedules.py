"""The learning rates of PyTorch's schedulers, stored and, where it is installed, live; and closed forms."""

import json
import math

import pytest

from birdsonnx.config.optimizers import SGD, Adam
from birdsonnx.config.reading import parse
from birdsonnx.config.schedules import Cosine, Exponential, MultiStep, ScheduleSettings, Warmup
from birdsonnx.training.schedules import learning_rate
from tests.training.make_optimizer_values import LEARNING_RATE, NUM_EPOCHS, SCHEDULES, VALUES, rates_by_torch

STORED = [case["rates"] for case in json.loads(VALUES.read_text())["rates"]]


def rates(optimizer, num_epochs=NUM_EPOCHS):
    return [learning_rate(optimizer, epoch, num_epochs) for epoch in range(1, num_epochs + 1)]


def rates_of(schedule):
    network = {"optimizer": {"learning_rate": LEARNING_RATE, "lr_scheduler": schedule}}
    return rates(parse(json.dumps({"neural_network": network}), "config.json").optimizer)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [(schedule, stored) for (schedule, *_), stored in zip(SCHEDULES, STORED, strict=True)],
    ids=str,
)
def test_stored_results_of_pytorch(schedule, expected):
    assert rates_of(schedule) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("schedule", "scheduler", "options"), SCHEDULES, ids=str)
def test_pytorch(schedule, scheduler, options):
    pytest.importorskip("torch")
    assert rates_of(schedule) == pytest.approx(rates_by_torch(scheduler, options), rel=1e-12)


def test_every_schedule_has_stored_results():
    assert {case["type"] for case, *_ in SCHEDULES} == {
        schedule.__name__ for schedule in ScheduleSettings.__args__
    }


@pytest.mark.parametrize("make", [SGD, Adam])
def test_every_optimizer_has_schedules(make):
    settings = make(learning_rate=0.1, lr_scheduler=Exponential(gamma=0.5))
    assert rates(settings, 3) == [0.1, 0.05, 0.025]


def test_constant():
    assert rates_of(None) == [LEARNING_RATE] * NUM_EPOCHS


def test_multistep_changes_after_each_milestone():
    schedule = MultiStep(gamma=0.5, milestones=[2, 3])
    assert rates(SGD(learning_rate=1, lr_scheduler=schedule), 5) == [1, 1, 0.5, 0.25, 0.25]


def test_warmup_ends_at_the_rate_itself():
    schedule = Warmup(num_epochs=4, start_factor=0.2)
    found = rates(SGD(learning_rate=1, lr_scheduler=schedule), 6)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert found[4:] == [1, 1]


def test_cosine_falls_over_the_whole_run():
    optimizer = SGD(learning_rate=1, lr_scheduler=Cosine(min_factor=0.5))
    assert rates(optimizer, 2) == pytest.approx([1, 0.75])
    assert rates(optimizer, 4)[3] == pytest.approx(0.75 - 0.25 * math.sqrt(0.5))
    assert rates(optimizer, 1) == [1]
    assert rates(SGD(lr_scheduler=Cosine()), 300)[-1] > 0
