"""What a run leaves behind, epoch by epoch, without training."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.artifacts.commands import Command
from birdsonnx.model.model_file import load
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import checkpoints, plan
from birdsonnx.training.epochs import Epoch
from birdsonnx.training.results import Results

LOSSES = (0.9, 0.5, 0.7, 0.4, 0.6)

COMMAND = Command(("train",), None)


@pytest.fixture
def results(fine_tuning):
    """Results of a run, and the lines that they said."""

    def make(save="saved", **sections):
        settings = fine_tuning(save, **sections)
        lines = []
        return Results(
            settings, Ranks(), plan.make(settings, Ranks(), lines.append), lines.append, COMMAND
        ), lines

    return make


def keep_all(kept):
    for number, loss in enumerate(LOSSES, 1):
        kept.keep_epoch(Epoch(number, 0.1, 1.0, loss, 0.5), number == len(LOSSES))


def every(interval):
    return {"checkpoints": {"load": "model.onnx", "save": "saved", "interval": interval}}


@pytest.mark.parametrize(("interval", "due"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_checkpoints_are_due_at_the_interval_and_at_the_end(results, interval, due):
    kept, lines = results(**every(interval))
    keep_all(kept)
    paths = [Path(f"saved/model_checkpoint_{epoch}.onnx") for epoch in due]
    assert kept.checkpoints == paths
    assert [line for line in lines if line.startswith("checkpoint")] == [
        f"checkpoint {path}" for path in paths
    ]
    assert sorted(Path("saved").glob("*.onnx")) == paths


def test_the_best_is_kept_for_early_stopping_alone(results):
    kept, lines = results(birdsonnx={"early_stopping": 3}, **every(9))
    keep_all(kept)
    assert lines == ["best so far saved/model_best.onnx"] * 3 + ["checkpoint saved/model_checkpoint_5.onnx"]
    assert load(Path("saved/model_best.onnx")).metadata.run == {"run": 1, "epoch": 4}


def test_without_a_folder_only_the_epochs_are_noted(results):
    kept, lines = results(None, birdsonnx={"early_stopping": 3})
    keep_all(kept)
    assert (kept.checkpoints, lines) == ([], [])
    assert [epoch.test_loss for epoch in kept.history] == list(LOSSES)
    assert not Path("saved").exists()


def test_a_checkpoint_has_the_weights_of_now_and_the_history(results):
    kept, _ = results()
    kept._plan.weights.named["dense/bias"][...] = [1, 2, 3]
    kept.keep_epoch(Epoch(1, 0.1, 1.0), False)
    model, state = checkpoints.newest(Path("saved"))
    [bias] = [tensor for tensor in model.proto.graph.initializer if tensor.name == "dense/bias"]
    np.testing.assert_array_equal(np.frombuffer(bias.raw_data, np.float32), [1, 2, 3])
    assert model.metadata.history == ({"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0},)
    assert state.settings["boundary"] == list(kept._plan.choice.boundary.tensors)


def test_the_history_goes_on_after_a_resume(fine_tuning):
    settings = fine_tuning()
    first = Results(settings, Ranks(), plan.make(settings, Ranks(), print), print, COMMAND)
    first.keep_epoch(Epoch(1, 0.1, 1.0, 0.9, 0.5), False)
    resumed = plan.make(settings, Ranks(), print, resume=True)
    assert (resumed.epochs_done, resumed.run) == (1, 1)
    again = Results(settings, Ranks(), resumed, print, COMMAND)
    again.keep_epoch(Epoch(2, 0.1, 0.8, 0.7, 0.6), False)
    assert [epoch.epoch for epoch in again.history] == [1, 2]
    assert [entry["epoch"] for entry in load(again.checkpoints[0]).metadata.history] == [1, 2]
    assert plan.make(settings, Ranks(), print).run == 2
    assert plan.make(settings, Ranks(), print).model.metadata.history == ()


def test_predictions_are_kept_where_they_are_asked_for(results):
    assert not results()[0].keeps_predictions
    kept, _ = results(data={"test_output_path": "kept_predictions/"})
    assert kept.keeps_predictions
    photos = kept._plan.test.photos
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(3), len(photos))).astype(np.float32)
    kept.keep_predictions(7, iter([(range(len(photos)), log_probs)]))
    with h5py.File("kept_predictions/output_7.h5") as file:
        assert "model_sha256" not in file.attrs  # no file has these weights
        for photo, expected in zip(photos, log_probs, strict=True):
            np.testing.assert_array_equal(file[photo.name][()], expected)


def test_predictions_name_the_checkpoint_they_are_of(results):
    kept, _ = results(data={"test_output_path": "kept_predictions/"})
    kept.keep_epoch(Epoch(1, 0.1, 1.0), True)
    kept.keep_predictions(1, iter([(range(1), np.zeros((1, 3), np.float32))]))
    with h5py.File("kept_predictions/output_1.h5") as file:
        [path] = kept.checkpoints
        assert file.attrs["model_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
