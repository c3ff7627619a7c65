"""The whole road on pictures it makes itself: export, training on two ranks, prediction, evaluation."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import h5py
import onnx
import pytest
from PIL import Image

from birdsonnx import demo
from birdsonnx.errors import ArtifactError
from birdsonnx.runtime import interpreter
from tests.command import refused, succeed_json
from tests.conftest import disk_of

STEP = """
import signal, sys, time
from pathlib import Path
def end(*_):
    Path("put_away").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
Path("working").touch()
time.sleep(60)
"""


def test_a_signal_lets_the_step_put_its_files_away(tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "command", lambda _: [sys.executable, "-c", STEP])

    def interrupt() -> None:
        while not Path("working").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        demo._step(tmp_path, ["train"], 1, print)
    waiting.join()
    assert Path("put_away").exists()


def test_a_full_disk_in_the_pictures(tmp_path):
    with disk_of(500), pytest.raises(ArtifactError, match="cannot write walk: File too large"):
        demo.run(Path("walk"), "none", print)


def test_demo(tmp_path):
    result = succeed_json("demo", "walk", fresh=True)
    assert result["valid_accuracy"] >= 0.9  # of six made-up species: guessing gives 0.17
    walk = tmp_path / "walk"
    [*_, last] = sorted(walk.rglob("model_checkpoint_*.onnx"), key=lambda path: path.stat().st_mtime)
    onnx.checker.check_model(str(last))
    [predictions] = walk.rglob("output_1.h5")
    with h5py.File(predictions) as file:
        assert len(file) == file.attrs["photos"] == 6
    for picture in walk.rglob("*.png"):
        with Image.open(picture) as image:
            image.verify()
    [config] = walk.glob("*.json")
    assert json.loads(config.read_text())["neural_network"]["data"]["input_path"]
    assert "not empty" in refused("demo", "walk")
