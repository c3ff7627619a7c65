"""Classes of few photos, as a user meets them: balanced weights in training."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.command import refused, succeed

COUNTS = {"ANT BIRD": 8, "BEE-EATER": 2, "COOT": 5}
WEIGHTS = [15 / (3 * count) for count in COUNTS.values()]


@pytest.fixture
def skewed(workspace, training_config):
    """`workspace` with fewer photos of two classes; gives what writes a config for it."""
    for name, count in COUNTS.items():
        for photo in sorted(Path("data/train", name).iterdir())[count:]:
            photo.unlink()

    def write(save: str, **loss) -> str:
        config = training_config(loss=loss)
        config["neural_network"]["checkpoints"] |= {"save": save, "interval": 1}
        Path(f"{save}.json").write_text(json.dumps(config))
        return f"{save}.json"

    return write


def head(path: str) -> list[np.ndarray]:
    tensors = onnx.load(path).graph.initializer
    return [numpy_helper.to_array(tensor) for tensor in tensors if tensor.name.startswith("dense/")]


@pytest.mark.parametrize("loss", [{"function": "NLL"}, {"function": "Focal", "gamma": 1.5}])
@pytest.mark.parametrize("ranks", [1, 2])
def test_balanced_weights_are_those_that_one_would_write(skewed, loss, ranks):
    text = succeed("train", skewed("balanced", **loss, weight="balanced"), ranks=ranks)
    assert "balanced class weights from 0.625 (ANT BIRD) to 2.5 (BEE-EATER)" in text
    succeed("train", skewed("written", **loss, weight=WEIGHTS), ranks=ranks)
    succeed("train", skewed("plain", **loss), ranks=ranks)
    found, expected, plain = (
        head(f"{save}/model_checkpoint_3.onnx") for save in ("balanced", "written", "plain")
    )
    assert all(map(np.array_equal, found, expected))
    assert not any(map(np.array_equal, found, plain))


def test_a_resumed_run_has_the_weights_that_it_had(skewed):
    succeed("train", skewed("whole", weight="balanced"))
    parts = skewed("parts", weight="balanced")
    succeed("train", parts, "--set", "num_epochs=2")
    text = succeed("train", parts, "--resume")
    assert "balanced class weights from 0.625 (ANT BIRD) to 2.5 (BEE-EATER)" in text
    assert all(
        map(np.array_equal, head("parts/model_checkpoint_3.onnx"), head("whole/model_checkpoint_3.onnx"))
    )


def test_other_weights_or_photos_are_another_run(skewed):
    config = skewed("saved", weight="balanced")
    succeed("train", config, "--set", "num_epochs=1")
    assert "its run had loss" in refused("train", config, "--resume", "--set", "loss.weight=null")
    Path("data/train/COOT/000.png").rename("data/train/BEE-EATER/900.png")
    assert "its run had 15 photos" in refused("train", config, "--resume")


def test_a_misspelt_word_is_refused(skewed):
    line = refused("train", skewed("saved", weight="ballanced"))
    assert "loss.weight" in line
    assert "did you mean 'balanced'?" in line
