"""Nothing is written into the home folder but the cache, and without a home only the cache is missed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import refused, succeed

HOMELESS = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
from birdsonnx.cli.app import main
sys.argv = ["birdsonnx", *sys.argv[1:]]
main()
"""


def homeless(*words: str) -> "subprocess.CompletedProcess[str]":
    """As a user that no list of users has, such as one of `docker run --user 4711`."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    return subprocess.run(
        [sys.executable, "-c", HOMELESS, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def config(workspace, training_config):
    def write(**own) -> str:
        Path("config.json").write_text(json.dumps(training_config(num_epochs=1, birdsonnx=own)))
        return "config.json"

    return write


def test_without_a_home_training_wants_a_cache(config):
    done = homeless("train", config())
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "this user has no home folder" in line
    assert "birdsonnx.cache" in line
    assert not Path("saved").exists()
    for cache in (False, "kept"):
        done = homeless("train", config(cache=cache))
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "data/valid", "--model", "model.onnx"),
        ("evaluate", "data/valid", "--model", "model.onnx", "--plot", "matrix.png"),
        ("quantize", "model.onnx", "--calibrate", "data/train"),
        ("doctor",),
    ],
)
def test_other_verbs_need_no_home(workspace, words):
    done = homeless(*words)
    assert done.returncode in (0, 1) if words == ("doctor",) else done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "birdsonnx" not in line]


def test_plots_and_keras_write_nothing_into_the_home(workspace, monkeypatch):
    pytest.importorskip("keras")
    Path("home").mkdir()
    for name in ("MPLCONFIGDIR", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    succeed("evaluate", "data/valid", "--model", "model.onnx", "--plot", "matrix.png")
    layers = [
        {"class_name": "Flatten", "config": {"batch_input_shape": [None, 8, 8, 3]}},
        {"class_name": "Dense", "config": {"units": 4, "activation": "softmax"}},
    ]
    Path("layers.json").write_text(json.dumps(layers))
    options = ("--weights", "none", "--preprocess", "none", "-o", "flat.onnx")
    assert "parity" in succeed("export", "--layers", "layers.json", *options)
    assert not list(Path("home").iterdir())


@pytest.mark.parametrize("change", ["fewer", "renamed"])
def test_a_resume_after_photos_went_is_refused(config, change):
    succeed("train", config())
    photo = Path("data/train/COOT/003.png")
    photo.unlink() if change == "fewer" else photo.rename(photo.with_name("999.png"))
    line = refused("train", "config.json", "--resume", "--set", "num_epochs=2")
    assert "its run had 24 photos in data/train" in line
    assert ("now there are 23;" if change == "fewer" else "now there are 24 with other names;") in line
