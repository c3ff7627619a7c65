"""The data section's tags, gray photos and colours, and the drawn graph, from config to prediction."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.model.test_dot import parsed
from tests.tiny import tiny_model

CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]
TAGGED = {"input_path": "data", "training_tag": "train", "test_tag": "valid", "batch_size": 7}


@pytest.fixture
def config(workspace, training_config):
    def write(**sections: Any) -> None:
        Path("config.json").write_text(json.dumps(training_config(**sections)))

    write()
    return write


@pytest.fixture
def sites(workspace):
    """The workspace's photos spread over two sites, `data/<site>/<set>/<class>/<photo>`; `plain/` keeps them
    as they were."""
    for photo in sorted(workspace.glob("data/*/*/*.png")):
        which, name = photo.relative_to(workspace / "data").parts[:2]
        site = "siteA" if int(photo.stem) % 2 else "siteB"
        target = workspace / "sites" / site / which / name / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, target)
    (workspace / "sites" / "overview.png").write_bytes(photo.read_bytes())
    (workspace / "data").rename(workspace / "plain")
    (workspace / "sites").rename(workspace / "data")


# --- Tags -----------------------------------------------------------------------------------------------


def test_training_by_tags_is_training_on_the_same_photos(workspace, config, sites):
    """In one batch, since their order is another."""
    config(data={"input_path": "plain/train", "test_input_path": "plain/valid"})
    plain = succeed_json("train", "config.json")["epochs"]
    config(data={**TAGGED, "batch_size": 64, "test_output_path": "kept/"})
    for ranks in (1, 2):
        tagged = succeed_json("train", "config.json", ranks=ranks)["epochs"]
        for figure in ("train_loss", "test_loss", "test_accuracy"):
            np.testing.assert_allclose(
                [epoch[figure] for epoch in tagged], [epoch[figure] for epoch in plain], rtol=1e-5
            )
    import h5py

    with h5py.File("kept/output_3.h5") as file:
        assert sorted(file) == ["siteA", "siteB"]
        assert list(file["siteB/valid"]) == CLASSES
        assert list(file.attrs["classes"]) == CLASSES
    assert succeed_json("evaluate", "kept/output_3.h5")["photos"] == 9


def test_the_summary_tells_what_is_left_out(workspace, config, sites):
    config(data=TAGGED)
    lines = succeed("train", "config.json")
    assert "24 photos of 3 classes in data (folders 'train'); 1 more there are in neither set" in lines
    assert "9 photos in data (folders 'valid')" in lines


def test_prediction_by_a_config_names_the_test_photos(workspace, config, sites):
    config(data=TAGGED)
    succeed("train", "config.json")
    test = {"checkpoints": {"load": "saved/model_checkpoint_3.onnx"}}
    for ranks, data in ((2, TAGGED), (1, {"test_input_path": "data", "testing_tag": "valid"})):
        content = {"neural_network": {**test, "data": {**data, "test_output_path": "named/"}}}
        Path("test.json").write_text(json.dumps(content))
        result = succeed_json("predict", "--config", "test.json", ranks=ranks)
        assert result["photos"] == 9
        assert {entry["name"].split("/")[1] for entry in result["predictions"]} == {"valid"}
        found = succeed_json("evaluate", "named/output_1.h5")
        plain = succeed_json("evaluate", "plain/valid", "--model", test["checkpoints"]["load"])
        assert found["confusion"] == plain["confusion"]
    assert succeed_json("train", "test.json")["photos"] == 9  # no input_path: it predicts
    assert (
        succeed_json("predict", "data/siteA", "--config", "test.json")["photos"] > 9
    )  # named, so all of them


def test_the_verbs_that_read_class_folders_take_a_tag(workspace, config, sites):
    config(data=TAGGED)
    result = succeed_json("train", "config.json")
    model = "saved/model_checkpoint_3.onnx"
    for ranks in (1, 2):
        found = succeed_json("evaluate", "data", "--tag", "valid", "--model", model, ranks=ranks)
        assert found["classes"] == CLASSES
        assert found["loss"] == pytest.approx(result["epochs"][-1]["test_loss"], rel=1e-5)
    taken = succeed_json("sample", "data", "samples", "--tag", "valid", "--per-class", 2)
    assert len(taken["photos"]) == 6
    words = [
        "quantize",
        model,
        "--calibrate",
        "data",
        "--validate",
        "data",
        "--tag",
        "valid",
        "--max-drop",
        1,
    ]
    assert succeed_json(*words)["validation"]["photos"] == 9


def test_a_preview_shows_photos_of_the_tag(workspace, config, sites):
    config(data=TAGGED)
    shown = succeed_json("plot", "--augmented", "config.json")["photos"]
    assert all("/train/" in name for name in shown)


class TestRefusedTags:
    def test_classes_that_differ(self, workspace, config, sites):
        config(data=TAGGED)
        for site in ("siteA", "siteB"):
            (workspace / "data" / site / "train" / "COOT").rename(
                workspace / "data" / site / "train" / "COOT "
            )
        line = refused("train", "config.json")
        assert "between data (folders 'valid') (3) and data (folders 'train') (3)" in line
        assert "'COOT '" in line

    def test_photos_without_a_class_folder(self, workspace, config, sites):
        config(data=TAGGED)
        shutil.copy("data/overview.png", "data/siteA/train/overview.png")
        assert "'siteA/train/overview.png'" in refused("train", "config.json", ranks=2)

    def test_resuming_with_another_tag(self, workspace, config, sites):
        config(data=TAGGED)
        succeed("train", "config.json")
        line = refused("train", "config.json", "--resume", "--set", "data.training_tag=valid")
        assert "is training_tag too" in line
        words = ["--set", "data.test_tag=null", "--set", "data.training_tag=valid"]
        line = refused("train", "config.json", "--resume", *words)
        assert "its run had data.training_tag 'train', the config has 'valid'" in line

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["evaluate", "model.onnx", "--tag", "a"], "--tag is for a folder"),
            (["export", "--tag", "a"], "--tag is for the folder of --labels"),
            (
                ["quantize", "model.onnx", "--calibrate", "data", "--tag", "a"],
                "--tag is for the folder of --valid",
            ),
            (["sample", "data", "new", "--tag", "a"], "no photo in a folder called 'a'"),
            (["export", "--labels", ".", "--tag", "valid", "--classes", 5], "but . has 3 classes"),
        ],
    )
    def test_a_tag_without_a_folder(self, workspace, words, said):
        assert said in refused(*words)


# --- Gray and colours -----------------------------------------------------------------------------------

PLAIN = {"input_path": "data/train/", "test_input_path": "data/valid/", "batch_size": 7}


@pytest.mark.parametrize("grayscale", [{"grayscale": True}, {"input_grayscale": True}, {}])
def test_a_network_of_one_channel(workspace, config, grayscale):
    tiny_model(channels=1, mode="unit").save(workspace / "model.onnx")
    config(data={**PLAIN, **grayscale})
    last = succeed_json("train", "config.json")["epochs"][-1]
    session = onnxruntime.InferenceSession("saved/model_checkpoint_3.onnx")
    losses = []
    for photo in sorted(workspace.glob("data/valid/*/*.png")):
        pixels = np.asarray(Image.open(photo).convert("L"))[None, ..., None]
        [log_probs] = session.run(None, {"images": pixels})
        losses.append(-log_probs[0, CLASSES.index(photo.parent.name)])
    assert last["test_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("normalize", [{"mean": 0.5, "std": 0.25}, {"mean": [0.5], "std": [0.25]}])
def test_normalize_for_one_channel(workspace, config, normalize):
    tiny_model(channels=1, mode="unit").save(workspace / "model.onnx")
    config(data={**PLAIN, "grayscale": True, "transforms": [{"resize": [32, 32]}, {"normalize": normalize}]})
    succeed("train", "config.json")
    bad = [{"resize": [32, 32]}, {"normalize": {"mean": [0.1, 0.2, 0.3], "std": 1}}]
    config(data={**PLAIN, "transforms": bad})
    assert "normalize has 3 values, the network takes 1 channel" in refused("train", "config.json")


@pytest.mark.parametrize(
    "transforms",
    [
        [{"resize": [32, 32]}, {"convert_color": "GRAY2RGB"}],
        [{"resize": [40, 40]}, {"convert_color": "COLOR_BGR2HSV"}, {"center_crop": [32, 32]}],
        [{"convert_color": "RGB2Lab"}, {"resize": [32, 32]}],
    ],
    ids=["gray", "hsv", "lab"],
)
def test_colours_travel_with_the_checkpoint(workspace, config, transforms):
    """Whoever reads a photo for the model later sees what training saw, without its config."""
    if "RGB2Lab" in str(transforms):
        pytest.importorskip("cv2")
    gray = {"grayscale": True} if "GRAY2RGB" in str(transforms) else {}
    config(data={**PLAIN, **gray, "transforms": transforms})
    last = succeed_json("train", "config.json")["epochs"][-1]
    model = "saved/model_checkpoint_3.onnx"
    assert succeed_json("evaluate", "data/valid", "--model", model)["loss"] == pytest.approx(
        last["test_loss"], rel=1e-5
    )
    plain = succeed_json("evaluate", "data/valid", "--model", "model.onnx")
    assert plain["loss"] != pytest.approx(last["test_loss"], rel=1e-3)


def test_gray_photos_for_a_network_of_three_channels_are_refused_with_what_to_do(workspace, config):
    config(data={**PLAIN, "grayscale": True})
    for ranks in (1, 2):
        line = refused("train", "config.json", ranks=ranks)
        assert '{"convert_color": "GRAY2RGB"}' in line
    content = {"checkpoints": {"load": "model.onnx"}, "data": {"test_input_path": "data", "grayscale": True}}
    Path("test.json").write_text(json.dumps({"neural_network": content}))
    assert '{"convert_color": "GRAY2RGB"}' in refused("predict", "--config", "test.json")


# --- The graph ------------------------------------------------------------------------------------------


def test_debug_draws_the_graph_with_what_is_trained_and_kept(workspace, config):
    config(debug=True)
    for ranks in (1, 2):
        assert "graph out.dot" in succeed("train", "config.json", ranks=ranks).splitlines()
        drawing = parsed(Path("out.dot").read_text())
        green = [node["label"] for node in drawing.nodes.values() if "fillcolor" in node]
        assert [label.split(r"\n")[0] for label in green] == ["dense/Gemm"]
        kept = [edge for edge in drawing.edges if edge[2].get("color") == "red"]
        assert len(kept) == 1
        Path("out.dot").unlink()


def test_debug_marks_no_features_where_none_are_kept(workspace, config):
    config(debug=True, birdsonnx={"cache": False})
    succeed("train", "config.json")
    assert "red" not in Path("out.dot").read_text()


def test_debug_in_a_prediction_draws_its_model(workspace):
    content = {"checkpoints": {"load": "model.onnx"}, "data": {"test_input_path": "data/valid"}}
    config = {"neural_network": {**content, "debug": True, "outfile": "logs/seen.txt"}}
    Path("test.json").write_text(json.dumps(config))
    assert "graph logs/seen.dot" in succeed("predict", "--config", "test.json").splitlines()
    assert len(parsed(Path("logs/seen.dot").read_text()).nodes) > 5


def test_without_debug_nothing_is_drawn(workspace, config):
    succeed("train", "config.json")
    assert not list(workspace.glob("**/*.dot"))
    done = birdsonnx("train", "config.json", "--set", "debug=true", "--set", "outfile=null")
    assert "give outfile too" in done.stderr
