"""int8 as a user meets it: `quantize`, predicting with what it wrote, and training that uses it."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.model import model_file
from birdsonnx.model.model_file import BirdModel
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.tiny import SIZE, make_class_folders, residual_model, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
INT8 = Path("model.int8.onnx")
QUANTIZE = ("quantize", "model.onnx", "--calibrate", "data/train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A network that tells the classes apart, and its int8 form."""
    folder = tmp_path_factory.mktemp("trained")
    make_class_folders(folder / "data/train", per_class=8, seed=1)
    make_class_folders(folder / "data/valid", per_class=3, seed=2)
    tiny_model(3, CLASSES).save(folder / "start.onnx")
    network = {
        "num_epochs": 20,
        "checkpoints": {"load": "start.onnx", "save": "saved"},
        "data": {"input_path": "data/train", "batch_size": 6},
        "optimizer": {"type": "Adam", "learning_rate": 0.05},
        "birdsonnx": {"cache": "kept"},
    }
    (folder / "config.json").write_text(json.dumps({"neural_network": network}))
    succeed("train", "config.json", cwd=folder)
    shutil.copy(folder / "saved/model_checkpoint_20.onnx", folder / "model.onnx")
    succeed(*QUANTIZE, cwd=folder)
    return folder


@pytest.fixture
def both(trained, tmp_path) -> Path:
    """`model.onnx`, `model.int8.onnx` and `data` of this test's own."""
    for name in ("model.onnx", "model.int8.onnx"):
        shutil.copy(trained / name, tmp_path / name)
    shutil.copytree(trained / "data", tmp_path / "data")
    return tmp_path


def log_probs() -> dict[str, np.ndarray]:
    with h5py.File("predictions/output_1.h5") as file:
        return {f"{group}/{name}": values[()] for group in file for name, values in file[group].items()}


# --- The verb -------------------------------------------------------------------------------------------


def test_the_whole_road(both):
    INT8.unlink()
    done = succeed_json(*QUANTIZE, "--validate", "data/valid", "--photos", "10", fresh=True)
    assert (done["output"], done["calibrated_on"], done["method"]) == ("model.int8.onnx", 10, "minmax")
    assert done["bytes"] == {"float32": Path("model.onnx").stat().st_size, "int8": INT8.stat().st_size}
    validation = done["validation"]
    assert validation["photos"] == 9
    assert validation["float32"]["accuracy"] == validation["int8"]["accuracy"] == validation["agreement"] == 1

    predicted = succeed_json("predict", "data/valid", "--model", INT8)
    assert predicted["photos"] == 9
    found = log_probs()
    succeed("predict", "data/valid", "--model", "model.onnx", "--precision", "fp32", "--overwrite")
    expected = log_probs()
    assert found.keys() == expected.keys()
    assert {name.split("/")[0]: CLASSES[values.argmax()] for name, values in found.items()} == {
        name: name for name in CLASSES
    }
    difference = max(np.abs(found[name] - expected[name]).max() for name in found)
    assert 0 < difference < 0.05 * max(np.abs(values).max() for values in expected.values())

    evaluated = succeed_json("evaluate", "data/valid", "--model", INT8)
    assert evaluated["accuracy"] == 1
    assert evaluated["loss"] == pytest.approx(validation["int8"]["loss"], rel=1e-5)
    assert "int8, calibrated on 10 photos (minmax)" in line_of("precision", succeed("info", INT8))
    assert "float32" in line_of("precision", succeed("info", "model.onnx"))


def line_of(title: str, text: str) -> str:
    [line] = [line for line in text.splitlines() if line.startswith(title)]
    return line


def test_it_says_what_it_did(both):
    text = succeed(*QUANTIZE, "--validate", "data/valid", "-o", "other/small.onnx", "--threads", "1")
    assert re.search(r"^float32  accuracy 1\.0000 .*\nint8     accuracy 1\.0000 ", text, re.MULTILINE)
    assert "agreement 1.0000 on 9 photos" in text
    assert "wrote other/small.onnx (" in text
    assert "calibrated on 24 photos, " in text
    assert model_file.load(Path("other/small.onnx")).metadata.classes == CLASSES


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_print_one_object_too(both, method):
    done = succeed_json(*QUANTIZE, "--method", method, "--photos", "5")
    assert (done["method"], done["calibrated_on"]) == (method, 5)
    assert model_file.load(INT8).metadata.quantization["method"] == method


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*QUANTIZE, "--method", "best"), "--method 'best' is none of minmax, entropy, percentile"),
        (("quantize", "model.onnx", "--calibrate", "nowhere"), "nowhere: no such file or folder"),
        (("quantize", "nothing.onnx", "--calibrate", "data/train"), "there is no such model"),
        (("quantize", INT8, "--calibrate", "data/train"), "model.int8.onnx: it is an int8 model already"),
        ((*QUANTIZE, "--validate", "nowhere"), "nowhere"),
        ((*QUANTIZE, "-o", "model.onnx"), "is the model itself"),
    ],
)
def test_refusals(both, words, said):
    before = INT8.read_bytes(), Path("model.onnx").read_bytes()
    assert said in refused(*words)
    assert (INT8.read_bytes(), Path("model.onnx").read_bytes()) == before


def test_a_calibration_photo_that_cannot_be_read_is_named(both):
    before = INT8.read_bytes()
    Path("data/train/COOT/003.png").write_text("no picture")
    line = refused(*QUANTIZE)
    assert "1 of 24 photos to calibrate with cannot be used" in line
    assert "data/train/COOT/003.png: not an image" in line
    assert INT8.read_bytes() == before


# --- Prediction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "precision", "said", "ranks"),
    [
        (
            "model.onnx",
            "int8",
            "model.onnx is a float32 model, --precision asks for int8; make one first: "
            "birdsonnx quantize MODEL --calibrate PHOTOS",
            2,
        ),
        (
            "model.int8.onnx",
            "fp32",
            "model.int8.onnx is an int8 model, --precision asks for fp32; give the model it was made of",
            1,
        ),
        ("model.onnx", "fp8", "--precision 'fp8' is none of fp32, bf16, int8", 1),
    ],
)
def test_a_precision_that_the_model_has_not(both, model, precision, said, ranks):
    words = ("predict", "data/valid", "--model", model, "--precision", precision)
    assert refused(*words, ranks=ranks).endswith(said)
    assert not Path("predictions").exists()


def test_int8_without_any_says_how_to_make_one(both):
    Path("model_checkpoints_save").mkdir()
    line = refused("predict", "data/valid", "--precision", "int8")
    assert "no model_checkpoint_*.onnx there; train first, or name a model" in line


def test_tune_measures_and_remembers(both):
    text = succeed("predict", "data/valid", "--model", INT8, "--tune", "--threads", "1")
    assert re.search(r"tuned: 1 x 1 threads, \d+ photos per run, by \w+ \(\d+ images/s\), remembered", text)
    [tuned] = Path(os.environ["XDG_CACHE_HOME"], "birdsonnx").glob("tuned-*.json")
    before = tuned.read_text()
    first = log_probs()
    text = succeed("predict", "data/valid", "--model", INT8, "--threads", "1")
    assert "tuned" not in text
    assert tuned.read_text() == before
    np.testing.assert_equal(log_probs(), first)


def test_a_normalize_transform_with_an_int8_model_is_refused(both):
    step = {"normalize": {"mean": [0.5], "std": [0.2]}}
    for load, paths in ((INT8, {"test_input_path": "data/valid"}), (INT8, {"input_path": "data/train"})):
        data = {**paths, "transforms": [{"resize": [SIZE, SIZE]}, step]}
        config = {"neural_network": {"checkpoints": {"load": str(load)}, "data": data}}
        Path("config.json").write_text(json.dumps(config))
        line = refused("train", "config.json")
        assert "an int8 model's preprocessing is part of its first layer" in line


# --- Training -------------------------------------------------------------------------------------------


@pytest.fixture
def config(workspace, training_config):
    """Writes `config.json`; keyword arguments are birdsonnx's own keys."""
    residual_model().save(workspace / "model.onnx")

    def write(save="saved", **own) -> None:
        network = training_config(num_epochs=2)["neural_network"]
        network["checkpoints"] = {"load": "model.onnx", "save": save, "interval": 1}
        network["birdsonnx"] = {"trainable": ["block_b", "last", "dense"], "cache": "kept", **own}
        Path("config.json").write_text(json.dumps({"neural_network": network}))

    write()
    return write


def test_an_int8_model_cannot_be_trained(both, training_config):
    network = training_config(checkpoints={"load": str(INT8), "save": "saved"})
    Path("config.json").write_text(json.dumps(network))
    line = refused("train", "config.json")
    assert "model.int8.onnx: an int8 model cannot be trained; train the float32 model" in line
    assert not Path("saved").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_leaves_an_int8_twin_of_its_last_checkpoint(config, ranks):
    save = "model_checkpoints_save"
    config(save, quantize=True)
    text = succeed("train", "config.json", ranks=ranks)
    twin = Path(save, "model_checkpoint_2.int8.onnx")
    assert f"int8 {twin}" in text
    assert [path.name for path in Path(save).glob("*.int8.onnx")] == [twin.name]
    metadata, of_float32 = (
        model_file.load(Path(save, name)).metadata for name in (twin.name, "model_checkpoint_2.onnx")
    )
    digest = hashlib.sha256(Path(save, "model_checkpoint_2.onnx").read_bytes()).hexdigest()
    record = {"precision": "int8", "method": "minmax", "photos": 24, "agreement": 1.0}
    assert metadata.quantization == {**record, "source_sha256": digest}
    assert (metadata.run, metadata.history) == (of_float32.run, of_float32.history)
    assert of_float32.quantization is None

    predicted = succeed_json("predict", "data/valid")
    assert predicted["model"] == f"{save}/model_checkpoint_2.onnx"
    predicted = succeed_json("predict", "data/valid", "--precision", "int8")
    assert predicted["model"] == str(twin)

    text = succeed("train", "config.json", "--resume", "--set", "num_epochs=3", ranks=ranks)
    assert f"resuming after epoch 2 from {save}/model_checkpoint_2.onnx" in text
    assert Path(save, "model_checkpoint_3.int8.onnx").exists()


SAVE = "model_checkpoints_save"
FLOAT32, TWIN = f"{SAVE}/model_checkpoint_2.onnx", f"{SAVE}/model_checkpoint_2.int8.onnx"
MEND = f"birdsonnx quantize {FLOAT32} --calibrate PHOTOS"


@pytest.fixture
def retrained(config) -> None:
    """A training with an int8 twin, and another one over it without."""
    config(SAVE, quantize=True)
    succeed("train", "config.json")
    succeed("train", "config.json", "--set", "birdsonnx.quantize=false", "--set", "birdsonnx.seed=7")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_twin_of_a_model_that_was_trained_over_is_not_used(retrained, ranks):
    said = f"{TWIN} was made of another model than model_checkpoint_2.onnx beside it is now"
    for words in (["predict", "data/valid"], ["evaluate", "data/valid"]):
        line = refused(*words, "--precision", "int8", ranks=ranks)
        assert line == f"birdsonnx: {said}; make it anew: {MEND}, or name it with --model"
        text = succeed(*words, "--model", TWIN, ranks=ranks)
        assert f"{said}; it is used because it was named" in text
    assert f"float32        it {said.removeprefix(TWIN + ' ')}" in succeed("info", TWIN)
    assert succeed_json("info", TWIN)["float32"]["misfit"] == said.removeprefix(TWIN + " ")
    succeed(*MEND.split()[1:-1], "data/train")
    assert succeed_json("predict", "data/valid", "--precision", "int8", ranks=ranks)["model"] == TWIN
    text = succeed("predict", "data/valid", "--model", TWIN)
    assert "used because" not in text
    assert f"float32        {FLOAT32} beside it is that model" in succeed("info", TWIN)


def test_both_precisions_mean_the_newest_checkpoint(config):
    config(SAVE, quantize=True)
    succeed("train", "config.json")
    succeed("train", "config.json", "--resume", "--set", "num_epochs=3", "--set", "birdsonnx.quantize=false")
    newest = f"{SAVE}/model_checkpoint_3.onnx"
    assert refused("predict", "data/valid", "--precision", "int8") == (
        f"birdsonnx: {newest}, the newest checkpoint, has no model_checkpoint_3.int8.onnx beside it; make "
        f"one: birdsonnx quantize {newest} --calibrate PHOTOS"
    )
    for path in (newest, FLOAT32, f"{SAVE}/model_checkpoint_1.onnx"):
        Path(path).unlink()
    assert succeed_json("predict", "data/valid", "--precision", "int8")["model"] == TWIN


def test_a_twin_of_an_older_version_has_to_share_the_history(config):
    def without_hash(path: str) -> None:
        twin = model_file.load(Path(path))
        record = {key: value for key, value in twin.metadata.quantization.items() if key != "source_sha256"}
        BirdModel(twin.proto, twin.metadata.having(quantization=record), path).save(Path(path))

    config(SAVE, quantize=True)
    succeed("train", "config.json")
    without_hash(TWIN)
    assert succeed_json("predict", "data/valid", "--precision", "int8")["model"] == TWIN
    assert "used because" not in succeed("predict", "data/valid", "--model", TWIN)
    succeed("train", "config.json", "--set", "birdsonnx.quantize=false")
    line = refused("predict", "data/valid", "--precision", "int8")
    assert f"{TWIN} does not say that it was made of model_checkpoint_2.onnx beside it; make it anew" in line


def test_the_twin_changes_nothing_of_the_training(config):
    contents = []
    for quantize in (True, False):
        config(quantize=quantize)
        succeed("train", "config.json")
        contents.append(Path("saved/model_checkpoint_2.onnx").read_bytes())
        shutil.rmtree("saved")
    assert contents[0] == contents[1]


def test_a_twin_of_nothing_is_refused(config):
    config(None, quantize=True)
    line = refused("train", "config.json")
    assert "neural_network.birdsonnx.quantize: there is no checkpoint without checkpoints.save" in line
    assert not Path("out_train.txt").exists()


def losses() -> np.ndarray:
    return np.loadtxt("out_train.txt")[:, 3]


@pytest.mark.parametrize("ranks", [1, 2])
def test_int8_features(config, ranks):
    """Nearly the losses of float32 ones, and the same bits each time: computed anew, or from the cache."""
    config()
    succeed("train", "config.json")
    exact = losses()
    shutil.rmtree("kept")
    config(feature_precision="int8")
    contents = []
    for attempt in range(3):
        shutil.rmtree("saved")
        if attempt == 1:
            shutil.rmtree("kept")
        kept = {path: path.stat().st_mtime_ns for path in Path("kept").glob("*")}
        text = succeed("train", "config.json", ranks=ranks, fresh=attempt == 1)
        contents.append(Path("saved/model_checkpoint_2.onnx").read_bytes())
        assert "(computed in int8)" in text
        if attempt == 2:
            assert kept == {path: path.stat().st_mtime_ns for path in Path("kept").glob("*")}
    assert len(set(contents)) == 1
    assert len(list(Path("kept").glob("backbone-*.int8.onnx"))) == 1
    assert len(list(Path("kept").glob("features-*.npy"))) == 2
    assert not np.array_equal(losses(), exact)
    # 2 % after 8 steps on features that differ by about 1 of 255.
    np.testing.assert_allclose(losses(), exact, rtol=0.05, atol=0.02)
    succeed("train", "config.json", "--resume", "--set", "num_epochs=3", ranks=ranks)


def test_a_resume_with_features_of_another_precision_is_refused(config):
    config(feature_precision="int8")
    succeed("train", "config.json")
    line = refused("train", "config.json", "--resume", "--set", "birdsonnx.feature_precision=fp32")
    assert "its run had birdsonnx.feature_precision 'int8', the config has 'fp32'" in line


def test_int8_features_that_are_not_kept_are_refused(config):
    config(feature_precision="int8", cache=False)
    line = refused("train", "config.json")
    assert "neural_network.birdsonnx.feature_precision: int8 features are cached; remove cache false" in line
    assert not Path("saved").exists()


def test_a_bad_photo_stops_int8_features_before_anything_is_trained(config):
    config(feature_precision="int8")
    for path in Path("data/train").rglob("000.png"):
        path.write_text("no picture")
    done = birdsonnx("train", "config.json")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(f"{name}/000.png: not an image" in done.stderr for name in CLASSES)
    assert not Path("saved").exists()
