"""Trainings that diverge where no loss of a batch tells: nothing of it is kept."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from birdsonnx import artifacts
from birdsonnx.training import checkpoints
from birdsonnx.training.loop import Training
from tests.tiny import make_class_folders, tiny_model


@pytest.fixture
def config() -> Path:
    tiny_model(3).save(Path("model.onnx"))
    make_class_folders(Path("train"), per_class=4)
    make_class_folders(Path("valid"), per_class=2)
    content = {
        "neural_network": {
            "num_epochs": 3,
            "outfile": "out.txt",
            "checkpoints": {"load": "model.onnx", "save": "saved"},
            "data": {"input_path": "train", "test_input_path": "valid", "test_output_path": "predictions",
                     "batch_size": 12},
            "optimizer": {"type": "SGD", "learning_rate": 0.01},
            "birdsonnx": {"cache": "cache"},
        }
    }  # fmt: skip
    Path("config.json").write_text(json.dumps(content))
    return Path("config.json")


@pytest.mark.parametrize("rate", [3e38, 1e39])
def test_a_last_step_that_diverges(config, rate, run):
    """One batch an epoch: its own loss is that of the weights before."""
    good = run("train", config, "--set", "num_epochs=1")
    assert good.code == 0, good
    kept = sorted(Path("saved").iterdir())
    diverged = run("train", config, "--set", f"optimizer.learning_rate={rate}")
    assert "training stopped. Lower optimizer.learning_rate" in diverged.refusal
    assert sorted(Path("saved").iterdir()) == kept
    assert sorted(Path("predictions").iterdir()) == [Path("predictions/output_1.h5")]
    assert run("predict", "valid").code == 2, "no folder of checkpoints by that name"
    assert run("predict", "valid", "--model", "saved/model_checkpoint_1.onnx").code == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_are_looked_at_without_test_photos(config, value, monkeypatch, run):
    def spoil(self, *_):
        self.learner.weights.flat[-1] = value
        return 0.5

    monkeypatch.setattr(Training, "_train", spoil)
    done = run("train", config, "--set", "data.test_input_path=null", "--set", "data.test_output_path=null")
    assert "epoch 1: its last steps left weights that are NaN or infinite" in done.refusal
    assert not Path("saved").exists()


def diverge(path: Path) -> None:
    """Make of a checkpoint what a version of birdsonnx that looked at no weights would have kept."""
    model = onnx.load(path)
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == "dense/bias"]
    bias.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), bias.name))
    path.write_bytes(model.SerializeToString())
    state = checkpoints.state_path(path)
    with np.load(state) as file:
        arrays = {name: file[name] for name in file.files}
    facts = json.loads(str(arrays["facts"]))
    arrays["facts"] = np.array(json.dumps({**facts, "model_sha256": artifacts.sha256(path)}))
    np.savez(state, **arrays)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "info", "resume"])
def test_a_checkpoint_that_diverged_long_ago_is_refused(config, run, verb):
    assert run("train", config, "--set", "num_epochs=1").code == 0
    path = Path("saved/model_checkpoint_1.onnx")
    diverge(path)
    words = {
        "predict": ("predict", "valid", "--model", path),
        "evaluate": ("evaluate", "valid", "--model", path),
        "info": ("info", path),
        "resume": ("train", config, "--resume"),
    }[verb]
    assert f"{path}: 'dense/bias' holds NaN" in run(*words).refusal


def test_a_run_goes_on_from_the_newest_sound_checkpoint_and_says_so(config, run):
    assert run("train", config, "--set", "num_epochs=2").code == 0
    diverge(Path("saved/model_checkpoint_2.onnx"))
    Path("saved/model_checkpoint_7.state.npz").write_bytes(b"PK")
    Path("saved/model_checkpoint_7.onnx").write_bytes(b"")
    done = run("train", config, "--resume")
    assert done.code == 0, done
    assert "passed over: saved/model_checkpoint_2.onnx: 'dense/bias' holds NaN" in done.out
    assert "passed over: saved/model_checkpoint_7.state.npz: damaged, or not of birdsonnx" in done.out
    assert "resuming after epoch 1 from saved/model_checkpoint_1.onnx" in done.out
    assert run("info", "saved/model_checkpoint_2.onnx").code == 0


def test_predictions_that_are_none_are_refused_as_photos_are(run):
    import h5py

    with h5py.File("p.h5", "w") as file:
        file.attrs["classes"] = ["A", "B"]
        file["A/1.png"] = np.array([np.nan, 0], np.float32)
        file["B/1.png"] = np.array([-1, -0.5], np.float32)
    done = run("evaluate", "p.h5", "--json")
    assert done.code == 1
    assert json.loads(done.out)["photos"] == 1
    assert "p.h5: A/1.png: its log-probabilities are NaN" in done.err


def test_a_predictions_file_of_another_file_or_size(run):
    import h5py

    Path("secret").write_bytes(bytes(8))
    with h5py.File("outside.h5", "w") as file:
        file.create_dataset("A/1.png", (2,), np.float32, external=[("secret", 0, 8)])
    assert "is stored elsewhere; a predictions file must hold" in run("evaluate", "outside.h5").refusal
    with h5py.File("bomb.h5", "w") as file:
        file.create_dataset("A/1.png", (10**13,), np.float32, chunks=(1024,))
    assert "far larger than the file" in run("evaluate", "bomb.h5").refusal
    assert "far larger than the file" in run("export", "bomb.h5").refusal
