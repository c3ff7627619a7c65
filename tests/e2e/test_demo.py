"""The whole road on pictures it makes itself: export, training on two ranks, prediction, evaluation."""

import json
import os
import signal
import sys
import threading
import time
from fnmatch import fnmatch
from pathlib import Path

import h5py
import onnx
import pytest
from PIL import Image

from birdsonnx import demo
from birdsonnx.artifacts import filling
from birdsonnx.errors import ArtifactError, BirdsonnxError, DataError
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
    assert result["test_accuracy"] >= 0.9
    table = (walk / "predictions" / "output_1.csv").read_text().splitlines()
    assert len(table) == 1 + 6
    for picture in walk.rglob("*.png"):
        with Image.open(picture) as image:
            image.verify()
    [config] = walk.glob("*.json")
    assert json.loads(config.read_text())["neural_network"]["data"]["input_path"]
    made = {path.name for path in walk.iterdir()}
    assert all(any(fnmatch(name, each) for each in demo.MADE) for name in made), made
    assert "not empty" in refused("demo", "walk")


def test_what_cannot_work_is_said_before_any_picture_is_made(tmp_path):
    assert "weights.h5: there is no such file" in refused("demo", "walk", "--weights", "weights.h5")
    assert not Path("walk").exists()


def test_a_demo_that_failed_begins_anew(tmp_path, monkeypatch):
    """Not so where something else is in its folder."""

    def failing(folder, words, ranks, say):
        raise BirdsonnxError("no more")

    with monkeypatch.context() as failure:
        failure.setattr(demo, "_step", failing)
        with pytest.raises(BirdsonnxError, match="no more"):
            demo.run(Path("walk"), "none", print)
    first = Path("walk/data/train/AMBER FINCH/001.jpg")
    assert first.is_file()
    first.write_bytes(b"old")
    Path("walk/notes.txt").touch()
    with pytest.raises(DataError, match=r"a demo that did not end is in it, and 'notes\.txt'"):
        demo.run(Path("walk"), "none", print)
    assert first.read_bytes() == b"old"
    Path("walk/notes.txt").unlink()
    lines = []
    monkeypatch.setattr(
        demo, "_run", lambda folder, weights, say: {"left": [each.name for each in folder.iterdir()]}
    )
    left = demo.run(Path("walk"), "none", lines.append)["left"]
    assert set(left) <= {filling.MARK, ".birdsonnx.lock"}
    assert lines == ["walk: a demo that did not end is in it; removed, to begin anew"]
    assert not Path("walk", filling.MARK).exists()
