"""`compare` as a user runs it, with small inputs and random weights."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.model import model_file
from birdsonnx.reporting.console import Console
from birdsonnx.runtime.interruption import Interrupted
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import comparing
from tests.command import birdsonnx, refused, succeed, succeed_json


@pytest.fixture
def config(workspace, training_config):
    """A config that ends at 32 x 40 photos, whose network is nowhere."""
    made = training_config()
    network = made["neural_network"]
    network["data"]["transforms"] = [{"resize": [40, 32]}]
    network["checkpoints"]["load"] = "nowhere.onnx"
    Path("config.json").write_text(json.dumps(made))
    return "config.json"


FAST = ("--weights", "none", "--seconds", "0.01")


def test_a_table_of_what_each_network_does(config):
    words = ("compare", config, *FAST, "--arch", "mobilenet", "MobileNetV3Small", "inceptionv3")
    done = birdsonnx(*words, "--json", "--set", "num_epochs=2")
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    assert "refused: InceptionV3" in line
    assert "at least 75x75" in line
    found = json.loads(done.stdout)
    assert {row["arch"] for row in found["compared"]} == {"MobileNet", "MobileNetV3Small"}
    folder = Path("runs/compare_1")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("compare.csv", "compare.json", "mobilenet", "mobilenetv3small")
    ]
    assert json.loads((folder / "compare.json").read_text()) == found
    for row in found["compared"]:
        model = Path(row["model"])
        assert (row["bytes"], row["input_size"]) == (model.stat().st_size, [32, 40])
        assert model_file.load(model).input_size == (32, 40, 3)
        judged = succeed_json("evaluate", "data/valid", "--model", model)
        assert row["accuracy"] == judged["accuracy"]
        assert row["loss"] == pytest.approx(judged["loss"], rel=1e-4)
        assert row["accuracy_interval"] == judged["accuracy_interval"]
        assert row["images_per_second"] > 0
        logs = np.loadtxt(folder / row["arch"].lower() / "out_classifier_test.txt")
        assert logs.shape == (2, 4)
    assert any(row["on_front"] for row in found["compared"])
    with (folder / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, each in zip(rows, found["compared"], strict=True):
        assert (row["arch"], float(row["accuracy"]), bool(int(row["on_front"]))) == (
            *(each["arch"], each["accuracy"]),
            each["on_front"],
        )
        assert (row["width"], row["height"]) == ("40", "32")


def test_ranks_train_together_and_the_next_comparison_gets_the_next_folder(config):
    alone = succeed_json("compare", config, *FAST, "--arch", "mobilenet,")
    text = succeed("compare", "mobilenet", config, *FAST, "--plot", "front.png", ranks=2)
    assert "each network replaces checkpoints.load of config.json" in text
    table = text.split("  architecture")[1].splitlines()
    assert table[1].startswith("* MobileNet ")
    assert max(map(len, table[:2])) <= 80
    assert Path("front.png").read_bytes().startswith(b"\x89PNG")
    together = json.loads(Path("runs/compare_2/compare.json").read_text())
    for key in ("accuracy", "arch", "input_size"):
        assert together["compared"][0][key] == alone["compared"][0][key]
    assert together["compared"][0]["loss"] == pytest.approx(alone["compared"][0]["loss"], rel=1e-3)
    written = succeed("train", "runs/compare_1/mobilenet/config.json", "--overwrite")
    assert "model_checkpoint_3.onnx" in written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["config.json"], "no network is given: --arch resnet50"),
        (["--arch", "resnet50"], "no config is given"),
        (["config.json", "--arch", "resnet50", "mobilnetv2"], "did you mean 'MobileNetV2'?"),
        (["config.json", "--arch", "resnet50,resnet51"], "--arch resnet51: there is no such network"),
        (["config.json", "other.json", "--arch", "vgg16"], "2 configs are given"),
        (["config.json", "--arch", "vgg16", "VGG16"], "--arch VGG16 is there twice"),
        (["config.json", "--arch", "vgg16", "--weights", "data"], "no file with weights of VGG16"),
        (["config.json", "--arch", "vgg16", "--seconds", "0"], "--seconds '0'"),
        (["config.json", "--arch", "vgg16", "--plot", "a.jpg"], "a.jpg: a plot is a .png"),
        (["config.json", "--arch", "vgg16", "--set", "data.test_input_path=null"], "data.test_input_path"),
        (["config.json", "--arch", "vgg16", "--set", "data.input_path=null"], "data.input_path"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(config, words, said):
    Path("other.json").write_text("{}")
    assert said in refused("compare", *words)
    assert not Path("runs").exists()


def test_nothing_is_left_where_every_network_is_refused(config):
    assert "at least 75x75" in refused("compare", config, *FAST, "--arch", "inceptionv3")
    assert not list(Path("runs").iterdir())


@pytest.mark.parametrize("trained", [0, 1])
def test_an_interruption_leaves_what_was_trained_and_nothing_begun(config, monkeypatch, trained):
    def one(_request, _work, arch, folder, *_):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "network.onnx").touch()
        if arch != "MobileNet" or not trained:
            raise Interrupted(2)
        (folder / "checkpoints/model_checkpoint_1.onnx").touch()
        interval = (0.1, 0.9)
        return comparing.Compared(arch, (8, 8), "none", 0.5, interval, 1.0, 9.0, 1, "", 9, 1.0, folder)

    monkeypatch.setattr(comparing, "_one", one)
    request = comparing.Request(Path(config), ("mobilenet", "mobilenetv2"), "none")
    with pytest.raises(Interrupted):
        comparing.compare(request, Ranks(), Console(json=True), None)
    left = {path.name for path in Path("runs").glob("compare_1/*")}
    assert left == ({"compare.csv", "compare.json", "mobilenet"} if trained else set())
    assert len(list(Path("runs").iterdir())) == trained
