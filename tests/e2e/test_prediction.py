"""`predict`, `evaluate` and `sample` as a user runs them, on a tiny trained network."""

import csv
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.conftest import make_workspace
from tests.tiny import make_class_folders, tiny_model

CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory, training_config) -> Path:
    """A workspace after a training that learns the three classes, with a test folder."""
    folder = make_workspace(tmp_path_factory.mktemp("trained"))
    make_class_folders(folder / "data" / "test", per_class=5, seed=3)
    sections = {
        "num_epochs": 15,
        "checkpoints": {"load": "model.onnx", "save": "model_checkpoints_save/", "interval": 20},
        "optimizer": {"type": "Adam", "learning_rate": 0.05},
    }
    (folder / "config.json").write_text(json.dumps(training_config(**sections)))
    succeed("train", "config.json", cwd=folder)
    return folder


@pytest.fixture
def trained(trained_once, tmp_path) -> Path:
    """A copy of it, where the test works."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


def plain_log_probs(model: Path, photo: Path) -> np.ndarray:
    """The oracle: any runtime, one photo, no code of ours."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.asarray(Image.open(photo).convert("RGB"))[None]})[0][0]


MODEL = Path("model_checkpoints_save/model_checkpoint_15.onnx")


@pytest.mark.parametrize("ranks", [1, 4])
def test_a_folder_of_class_folders_gives_groups(trained, ranks):
    succeed("predict", "data/test", "--batch-size", "2", ranks=ranks, fresh=True)
    with h5py.File("predictions/output_1.h5") as file:
        assert list(file) == CLASSES
        assert file.attrs["photos"] == 15
        assert list(file.attrs["classes"]) == CLASSES
        for name in CLASSES:
            for photo in sorted((Path("data/test") / name).iterdir()):
                found = file[name][photo.name]
                assert found.dtype == np.float32
                np.testing.assert_allclose(found[()], plain_log_probs(MODEL, photo), atol=1e-6)


def test_the_tutorials_reading_loop_agrees_with_evaluate(trained):
    succeed("sample", "data/test", "test_samples", "--seed", "5")
    succeed("predict", "test_samples/")
    pred = h5py.File("predictions/output_1.h5", "r")
    right = sum(np.argmax(pred[dataset][()]) == position for position, dataset in enumerate(pred))
    evaluated = succeed_json("evaluate", "predictions/output_1.h5")
    assert len(pred) == evaluated["photos"] == 3
    assert right / len(pred) == evaluated["accuracy"]


def test_evaluate_gives_the_same_for_a_folder_and_for_its_predictions(trained):
    succeed("predict", "data/test")
    from_file = succeed_json("evaluate", "predictions/output_1.h5")
    from_folder = succeed_json("evaluate", "data/test")
    assert from_file["confusion"] == from_folder["confusion"]
    assert from_file["loss"] == pytest.approx(from_folder["loss"], rel=1e-6)
    assert from_folder["accuracy"] >= 0.9


def test_evaluate_under_mpirun(trained):
    alone = succeed_json("evaluate", "data/test")
    assert succeed_json("evaluate", "data/test", ranks=2)["confusion"] == alone["confusion"]


def test_evaluate_writes_table_and_picture(trained):
    text = succeed("evaluate", "data/test", "--csv", "table.csv", "--plot", "confusion.png")
    assert "BEE-EATER" in text
    with Path("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert all(int(row["photos"]) == 5 for row in rows)
    with Image.open("confusion.png") as image:
        assert min(image.size) > 300


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["data/test/COOT/001.png"], ["001.png"]),
        (["data/test/COOT"], [f"{number:03}.png" for number in range(5)]),
        (["data/test/*/003.png"], [f"{name}/003.png" for name in CLASSES]),
        (["data/test/COOT/000.png", "data/test/BEE-EATER/001.png"], ["000.png", "001.png"]),
    ],
)
def test_inputs_and_the_names_they_give(trained, inputs, names):
    result = succeed_json("predict", *inputs)
    assert [entry["name"] for entry in result["predictions"]] == names


def test_two_folders_with_the_same_names_keep_their_own(trained):
    shutil.copytree("data/test/COOT", "cards/a/DCIM")
    shutil.copytree("data/test/BEE-EATER", "cards/b/DCIM")
    text = succeed("predict", "cards/a/DCIM", "cards/b/DCIM")
    assert "would both be called '000.png': names begin with their folders, such as 'a/DCIM/000.png'" in text
    with h5py.File("predictions/output_1.h5") as file:
        assert len(file["a/DCIM"]) == len(file["b/DCIM"]) == 5
        found = file["b/DCIM/003.png"][()]
    np.testing.assert_allclose(found, plain_log_probs(MODEL, Path("cards/b/DCIM/003.png")), atol=1e-6)


def test_a_photo_that_is_given_twice_is_refused_before_any_work(trained):
    line = refused("predict", "data/test/COOT", "data/test/COOT/000.png")
    assert "data/test/COOT/000.png is given twice" in line
    assert not Path("predictions").exists()


def test_top_k_and_csv(trained):
    text = succeed("predict", "data/test/COOT", "--top-k", "2", "--csv", "named.csv")
    with Path("named.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "class_1", "probability_1", "class_2", "probability_2"]
    expected = np.exp(plain_log_probs(MODEL, Path("data/test/COOT/000.png")))
    assert rows[1][1] == CLASSES[expected.argmax()]
    assert float(rows[1][2]) == pytest.approx(expected.max(), abs=1e-5)
    assert "000.png" in text


@pytest.mark.parametrize("ranks", [1, 2])
def test_bad_photos_are_skipped_listed_and_exit_1(trained, ranks):
    folder = Path("data/test/COOT")
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:200])
    (folder / "note.jpg").write_text("no picture")
    done = birdsonnx("predict", "data/test", ranks=ranks)
    assert done.returncode == 1
    assert [line.split(": ")[1] for line in sorted(done.stderr.splitlines())] == ["refused"] * 2
    assert "COOT/002.png" in done.stderr
    with h5py.File("predictions/output_1.h5") as file:
        assert (file.attrs["photos"], file.attrs["refused"]) == (14, 2)
        assert list(file["COOT"]) == ["000.png", "001.png", "003.png", "004.png"]


def test_nothing_but_bad_photos_is_exit_2_and_the_old_file_stays(trained):
    succeed("predict", "data/test")
    before = Path("predictions/output_1.h5").read_bytes()
    Path("bad").mkdir()
    Path("bad/a.jpg").write_text("no picture")
    assert "bad/a.jpg" in refused("predict", "bad")
    assert Path("predictions/output_1.h5").read_bytes() == before
    assert [path.name for path in Path("predictions").iterdir()] == ["output_1.h5"]


def test_the_tutorials_test_config_with_its_pt_name(trained):
    succeed("sample", "data/test", "test_samples")
    config = {
        "neural_network": {
            "layers": "./layers.json",
            "checkpoints": {"load": "./model_checkpoints_save/model_checkpoint_15.pt"},
            "data": {
                "input_type": "images",
                "test_input_path": "./test_samples/",
                "test_output_path": "./named/",
                "transforms": [{"resize": [32, 32]}],
            },
        }
    }
    text = json.dumps(config, indent=2)
    Path("config_test.json").write_text(text)
    for words in (["predict", "--config", "config_test.json"], ["train", "--config=config_test.json"]):
        said = succeed(*words)
        assert "model_checkpoint_15.onnx instead" in said
        assert "layers.json is not there" in said
        assert Path("named/output_1.h5").exists()
        Path("named/output_1.h5").unlink()
    Path("config_test.json").write_text(text.rstrip()[:-1])
    line = refused("predict", "--config", "config_test.json")
    assert "line " in line
    assert "column " in line


def test_layers_of_another_network_are_refused(trained):
    layers = {
        "class_name": "Functional",
        "config": {
            "layers": [
                {"class_name": kind, "config": {"name": name, key: units}}
                for kind, name, key, units in (
                    ("Conv2D", "conv1", "filters", 8),
                    ("Conv2D", "conv2", "filters", 24),
                    ("Dense", "dense", "units", 400),
                )
            ]
        },
    }
    inner = layers["config"]
    inner["input_layers"] = [[inner["layers"][0]["config"]["name"], 0, 0]]
    inner["output_layers"] = [[inner["layers"][-1]["config"]["name"], 0, 0]]
    Path("layers.json").write_text(json.dumps(layers))
    config = {
        "neural_network": {
            "layers": "layers.json",
            "checkpoints": {"load": str(MODEL)},
            "data": {"test_input_path": "data/test"},
        }
    }
    Path("config_test.json").write_text(json.dumps(config))
    line = refused("predict", "--config", "config_test.json")
    assert "'dense' has 400 units in layers.json and 3 in" in line


def test_names_survive_hdf5(trained):
    folder = Path("odd")
    folder.mkdir()
    names = ["with space.png", "ünï çödé.png", "a.b.c.png", "#%&'.png", "日本.png"]
    for name in names:
        (folder / name).write_bytes(Path("data/test/COOT/000.png").read_bytes())
    succeed("predict", "odd")
    with h5py.File("predictions/output_1.h5") as file:
        assert sorted(file) == sorted(names)


def test_a_name_that_hdf5_cannot_hold_is_refused(trained):
    folder = Path("odd")
    folder.mkdir()
    for name in (b"odd/bad\xff.png", b"odd/good.png"):
        Path(os.fsdecode(name)).write_bytes(Path("data/test/COOT/000.png").read_bytes())
    done = birdsonnx("predict", "odd")
    assert done.returncode == 1
    assert "not valid UTF-8" in done.stderr


def test_evaluate_needs_the_models_classes(trained):
    (trained / "data/test/COOT").rename(trained / "data/test/COOTS")
    line = refused("evaluate", "data/test")
    assert "'COOTS'" in line


def test_predict_refuses_a_foreign_model(trained):
    import onnx

    proto = tiny_model().proto
    onnx.save(proto, "foreign.onnx")
    assert "not made by birdsonnx" in refused("predict", "data/test", "--model", "foreign.onnx")


def test_info_tells_what_the_model_holds(trained):
    info = succeed_json("info", MODEL)
    assert info["classes"] == CLASSES
    assert info["trainable"] == ["dense"]
    assert len(info["history"]) == 15
    assert "BEE-EATER" in succeed("info", MODEL)


def test_plot_draws_the_curves(trained):
    succeed("plot", "out.txt")
    with Image.open("out.png") as image:
        assert image.width > image.height > 300


def test_sample_is_seeded_and_refuses_a_full_folder(trained):
    succeed("sample", "data/test", "one", "--per-class", "2", "--seed", "1")
    succeed("sample", "data/test", "two", "--per-class", "2", "--seed", "1")
    assert sorted(path.name for path in Path("one").iterdir()) == sorted(
        path.name for path in Path("two").iterdir()
    )
    assert len(list(Path("one").iterdir())) == 6
    assert "not empty" in refused("sample", "data/test", "one")


def test_sample_into_the_empty_folder_one_is_in(workspace):
    Path("empty").mkdir()
    folder = workspace / "empty"
    assert succeed("sample", "../data/valid", ".", cwd=folder).startswith("copied 3 photos to .\n")
    assert len(list(folder.iterdir())) == 3
    assert ".: exists and is not empty" in refused("sample", "../data/valid", ".", cwd=folder)


def test_no_name_of_a_file_moves_the_cursor(workspace):
    Path("data/valid/COOT/000.png").rename("data/valid/COOT/\x1b[2J\n.png")
    text = succeed("predict", "data/valid/COOT", "--model", "model.onnx")
    assert "\\x1b[2J\\n.png" in text
    assert "\x1b" not in text


def test_an_output_that_names_a_file_is_refused(workspace):
    line = refused("predict", "data/valid", "--model", "model.onnx", "-o", "answers.h5")
    assert line == "birdsonnx: -o answers.h5: name a folder; output_1.h5 is written into it"
    assert not Path("answers.h5").exists()
