"""Where the seconds of a run go, by rank."""

import json
from pathlib import Path

import pytest

from birdsonnx.runtime.phases import Phases, longest
from birdsonnx.runtime.ranks import Ranks
from tests.command import succeed_json

TRAINING = {"load", "step", "sum", "optimizer", "evaluation", "checkpoint"}


def test_seconds_add_up(monkeypatch):
    times = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    phases = Phases()
    phases.add("step", 1.0)
    with phases.during("step"):
        pass
    phases.add("sum", 0.25)
    assert phases.of_all(Ranks()) == [{"step": 3.5, "sum": 0.25}]
    assert phases.total("step", "sum", "decode") == 3.75


def test_the_longest_of_all_ranks():
    assert longest([{"step": 1.0, "sum": 0.2}, {"step": 3.0, "evaluation": 1.0}]) == (
        "step 3.0 s, sum 0.2 s, evaluation 1.0 s"
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_and_prediction_say_what_each_rank_spent(workspace, training_config, ranks):
    Path("config.json").write_text(json.dumps(training_config(birdsonnx={"cache": "kept"})))
    found = succeed_json("train", "config.json", ranks=ranks)
    assert [each.keys() >= TRAINING for each in found["phases"]] == [True] * ranks
    assert all({"decode", "features", "exchange"} <= each.keys() for each in found["phases"])
    counted = sum(
        found["phases"][0][name] for name in TRAINING
    )  # whose epochs these are; others begin earlier
    assert counted <= found["seconds"]["epochs"] + 0.01
    named = succeed_json("predict", "data/valid", "--model", "model.onnx", ranks=ranks)
    assert len(named["phases"]) == ranks
    assert any({"decode", "network", "waiting"} <= each.keys() for each in named["phases"])
    assert "writing" in named["phases"][0]
