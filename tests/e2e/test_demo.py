"""The whole road on pictures it makes itself: export, training on two ranks, prediction, evaluation."""

import json

import h5py
import onnx
from PIL import Image

from tests.command import refused, succeed_json


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
