"""Classes of few photos, as a user meets them: balanced weights in training, figures in an evaluation."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.command import refused, succeed, succeed_json
from tests.tiny import make_class_folders, tiny_model

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


@pytest.mark.parametrize(
    ("loss", "ranks"), [({"function": "NLL"}, 1), ({"function": "NLL"}, 2), ({"function": "Focal"}, 1)]
)
def test_balanced_weights_are_those_that_one_would_write(skewed, loss, ranks):
    text = succeed("train", skewed("balanced", **loss, weight="balanced"), ranks=ranks)
    assert "balanced class weights from 0.625 (ANT BIRD) to 2.5 (BEE-EATER)" in text
    succeed("train", skewed("written", **loss, weight=WEIGHTS), ranks=ranks)
    succeed("train", skewed("plain", **loss))
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


@pytest.fixture
def judged(tmp_path):
    """`model.onnx`, and photos that it judges: 10, 1 and none of three classes."""
    make_class_folders(Path("data"), list(COUNTS), per_class=10)
    for photo in [*sorted(Path("data/BEE-EATER").iterdir())[1:], *Path("data/COOT").iterdir()]:
        photo.unlink()
    tiny_model(3, tuple(COUNTS)).save(Path("model.onnx"))
    return tmp_path


@pytest.mark.parametrize("ranks", [1, 2])
def test_figures_of_classes_of_few_photos(judged, ranks):
    words = ("evaluate", "data", "--model", "model.onnx")
    found = succeed_json(*words, "--csv", "table.csv", ranks=ranks)
    matrix = np.array(found["confusion"])
    right, shown, named = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    assert shown.tolist() == [10, 1, 0]
    f1 = [2 * r / (s + n) if s + n else None for r, s, n in zip(right, shown, named, strict=True)]
    assert [row["f1"] for row in found["per_class"]] == [each and pytest.approx(each) for each in f1]
    assert found["macro_f1"] == pytest.approx(np.mean([each for each in f1 if each is not None]))
    assert found["macro_accuracy"] == pytest.approx((right[0] / 10 + right[1]) / 2)
    widths = [high - low for low, high in (row["recall_interval"] for row in found["per_class"][:2])]
    assert widths[1] > 0.75 > widths[0], "one photo says little"
    assert found["per_class"][2]["recall_interval"] is None
    low, high = found["accuracy_interval"]
    assert 0 <= low < found["accuracy"] < high <= 1

    # the calibration error from the answers themselves
    succeed("predict", "data", "--model", "model.onnx")
    sums = np.zeros((15, 2))
    with h5py.File("predictions/output_1.h5") as file:
        for label, name in enumerate(COUNTS):
            for log_probs in file[name].values() if name in file else ():
                best = int(np.argmax(log_probs))
                p = float(np.exp(log_probs[best]))
                sums[int(np.ceil(15 * p)) - 1] += best == label, p
    assert found["calibration_error"] == pytest.approx(np.abs(sums[:, 0] - sums[:, 1]).sum() / 11, abs=1e-6)

    text = succeed(*words, ranks=ranks)
    assert f"recall {found['macro_accuracy']:.4f}   F1 {found['macro_f1']:.4f}" in text
    assert f"accuracy between {low:.4f} and {high:.4f} (95 %)" in text
    with Path("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["class", "photos", "correct", "recall", "precision"]
    for row, each in zip(rows, found["per_class"], strict=True):
        assert row["f1"] == ("" if each["f1"] is None else str(each["f1"]))
        assert [row["recall_low"], row["recall_high"]] == list(map(str, each["recall_interval"] or ["", ""]))


def test_the_report_has_the_means_over_the_classes(judged):
    pytest.importorskip("jinja2")
    found = succeed_json("evaluate", "data", "--model", "model.onnx")
    made = succeed_json("report", "model.onnx", "--data", "data", "-o", "page.html")
    assert (made["macro_f1"], made["macro_accuracy"]) == (found["macro_f1"], found["macro_accuracy"])
    assert f"<b>{found['macro_f1']:.3f}</b> mean F1" in Path("page.html").read_text()
