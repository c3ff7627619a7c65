"""SIGKILL at random moments of each verb that writes: every file is whole or absent, the next run ends the
work and removes what the killed one left, and a resumed training has the bits of one that nobody killed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from tests.command import succeed
from tests.tiny import make_class_folders

EPOCHS = 60
LAYERS = [
    {"class_name": "Flatten", "config": {"batch_input_shape": [None, 8, 8, 3]}},
    {"class_name": "Dense", "config": {"units": 4, "activation": "softmax"}},
]
WORDS = {
    "train": ("train", "config.json"),
    "predict": ("predict", "many", "--model", "model.onnx", "--csv", "names.csv"),
    "quantize": ("quantize", "model.onnx", "--calibrate", "data/train"),
    "export": (
        "export",
        "--layers",
        "layers.json",
        "--weights",
        "none",
        "--preprocess",
        "none",
        "-o",
        "new.onnx",
    ),
}


@pytest.fixture
def place(workspace, training_config, monkeypatch) -> Path:
    """Everything that the verbs read; their temporary files stay below it."""
    checkpoints = {"load": "model.onnx", "save": "saved/", "interval": 1}
    config = training_config(num_epochs=EPOCHS, checkpoints=checkpoints, birdsonnx={"cache": "kept"})
    Path("config.json").write_text(json.dumps(config))
    Path("layers.json").write_text(json.dumps(LAYERS))
    make_class_folders(Path("many"), per_class=60)
    Path("temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(workspace / "temporary"))
    return workspace


def litter() -> list[Path]:
    hidden = [path for path in Path().rglob(".*") if path.suffix in (".tmp", ".lock")]
    return [*hidden, *Path().rglob("*.next.state.npz"), *Path("temporary").iterdir()]


def require_whole() -> None:
    """What has its name is complete."""
    for path in [*Path("saved").glob("*.onnx"), *Path().glob("*.onnx")]:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    for path in Path("saved").glob("*.npz"):
        with np.load(path) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "facts")
    for path in Path().glob("predictions/*.h5"):
        with h5py.File(path) as file:
            assert file.attrs["photos"] == sum(len(file[name]) for name in file)


def seconds_of(words: tuple[str, ...]) -> float:
    started = time.perf_counter()
    succeed(*words, fresh=True)
    return time.perf_counter() - started


def kill_after(seconds: float, words: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "birdsonnx", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def results(verb: str) -> dict[str, bytes]:
    """What a verb wrote; of a training the weights, since the time it took is in the states."""
    names = {
        "train": [f"saved/model_checkpoint_{EPOCHS}.onnx"],
        "predict": ["predictions/output_1.h5", "names.csv"],
        "quantize": ["model.int8.onnx"],
        "export": ["new.onnx"],
    }
    return {name: Path(name).read_bytes() for name in names[verb]}


def kill_often(verb: str, kills: int, seed: int) -> None:
    words, generator = WORDS[verb], random.Random(seed)
    whole_s = seconds_of(words)
    expected = results(verb)
    if verb == "train":
        Path("saved").rename("expected")
    for _ in range(kills):
        # The first third is imports and reading.
        kill_after(generator.uniform(whole_s / 3, whole_s), words)
        require_whole()
        if verb == "export":
            succeed(*words, fresh=True)  # a fork has imported Keras, and with it made the temporary files
        elif verb != "train":
            succeed(*words)
        elif list(Path("saved").glob("*.state.npz")):
            succeed(*words, "--resume")
        else:
            succeed(*words)
        assert results(verb) == expected
        require_whole()
        assert not litter()
        if verb == "train":
            for path in Path("saved").iterdir():
                path.unlink()
            for path in Path("kept").glob("features-*"):  # so that they are computed again
                path.unlink()


@pytest.mark.parametrize(("verb", "kills"), [("train", 2), ("predict", 1), ("quantize", 1)])
def test_a_few_kills(place, verb, kills):
    kill_often(verb, kills, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "kills"), [("train", 20), ("predict", 12), ("quantize", 12), ("export", 6)])
def test_fifty_kills(place, verb, kills):
    kill_often(verb, kills, seed=2)
