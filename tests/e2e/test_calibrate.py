"""Calibration as a user meets it: the verb, training that does it, and what predicts, trains and quantises
on from there."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from birdsonnx.model import model_file
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.tiny import SIZE, make_class_folders, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
NETWORK = {
    "num_epochs": 4,
    "checkpoints": {"load": "start.onnx", "save": "model_checkpoints_save"},
    "data": {"input_path": "data/train", "test_input_path": "data/valid", "batch_size": 6},
    "optimizer": {"type": "Adam", "learning_rate": 0.02},
    "birdsonnx": {"cache": "kept"},
}
MODEL = Path("model_checkpoints_save/model_checkpoint_4.onnx")
CALIBRATED = MODEL.with_suffix(".calibrated.onnx")
CALIBRATE = ("calibrate", "--validate", "data/valid")


def config(name: str = "config.json", **own) -> str:
    network = {**NETWORK, "birdsonnx": {**NETWORK["birdsonnx"], **own}}
    Path(name).write_text(json.dumps({"neural_network": network}))
    return name


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A network that names most photos rightly, hardly sure of it."""
    folder = tmp_path_factory.mktemp("trained")
    make_class_folders(folder / "data/train", per_class=8, seed=1)
    make_class_folders(folder / "data/valid", per_class=12, seed=2)
    tiny_model(3, CLASSES).save(folder / "start.onnx")
    (folder / "config.json").write_text(json.dumps({"neural_network": NETWORK}))
    succeed("train", "config.json", cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def own(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def log_probs(model: Path, *words: str) -> dict[str, np.ndarray]:
    succeed("predict", "data/valid", "--model", model, "--overwrite", *words)
    with h5py.File("predictions/output_1.h5") as file:
        return {f"{group}/{name}": values[()] for group in file for name, values in file[group].items()}


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores.astype(np.float64) - scores.max()
    return shifted - np.log(np.exp(shifted).sum())


def figures(found: dict[str, np.ndarray]) -> tuple[float, float]:
    """Loss and expected calibration error, by a loop over 15 bins."""
    loss, bins = 0.0, [[] for _ in range(15)]
    for name, values in found.items():
        loss -= values[CLASSES.index(name.split("/")[0])] / len(found)
        chance = min(1.0, float(np.exp(values.max())))
        right = CLASSES[values.argmax()] == name.split("/")[0]
        bins[min(14, max(0, int(np.ceil(chance * 15)) - 1))].append((chance, right))
    error = sum(abs(sum(c for c, _ in each) - sum(r for _, r in each)) for each in bins) / len(found)
    return float(loss), error


# --- The verb -------------------------------------------------------------------------------------------


def test_the_file_itself_answers_calibrated_probabilities():
    done = succeed_json(*CALIBRATE, "--precision", "0.9", "--plot", "curves.png", fresh=True)
    assert (done["output"], done["photos"], done["refused"]) == (str(CALIBRATED), 36, [])
    assert done["changed"] == "dense/kernel and dense/bias were divided by it"
    before, after = log_probs(MODEL), log_probs(CALIBRATED)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], log_softmax(values / done["temperature"]), atol=1e-5)
        assert after[name].argmax() == values.argmax()
    for found, when in ((before, "before"), (after, "after")):
        loss, error = figures(found)
        assert done[when]["loss"] == pytest.approx(loss, abs=1e-5)
        assert done[when]["calibration_error"] == pytest.approx(error, abs=1e-5)
    losses = [
        -np.mean([log_softmax(v / t)[CLASSES.index(n.split("/")[0])] for n, v in before.items()])
        for t in done["temperature"] * np.array([0.98, 1, 1.02])
    ]
    assert losses[1] == min(losses)
    with Image.open("curves.png") as picture:
        assert picture.size > (800, 500)
    metadata = model_file.load(CALIBRATED).metadata
    assert metadata.calibration["temperature"] == done["temperature"]
    assert list(metadata.thresholds["values"]) == done["thresholds"]["values"]
    assert len(metadata.thresholds["values"]) == 3
    assert "calibrated: temperature" in succeed("info", CALIBRATED)


def test_two_ranks_write_the_same_bytes():
    succeed(*CALIBRATE, "--precision", "0.9", "-o", "one.onnx")
    text = succeed(*CALIBRATE, "--precision", "0.9", "-o", "two.onnx", ranks=2)
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    assert text.count("before ") == 1


def test_once_more_changes_nothing_and_counts_both():
    first = succeed_json(*CALIBRATE)
    line = refused("calibrate", CALIBRATED, "--validate", "data/valid")
    assert "is a calibrated model" in line
    again = succeed_json("calibrate", CALIBRATED, "--validate", "data/valid", "-o", "again.onnx")
    assert again["temperature"] == pytest.approx(1, abs=1e-3)
    assert again["total_temperature"] == pytest.approx(first["temperature"], rel=1e-3)
    assert "replaced" in succeed(*CALIBRATE)


def test_bad_photos_are_listed():
    Path("data/valid/COOT/000.png").write_bytes(b"no photo")
    done = birdsonnx(*CALIBRATE, "--json")
    assert done.returncode == 1
    assert "COOT/000.png" in done.stderr
    assert json.loads(done.stdout)["photos"] == 35
    for path in Path("data/valid").rglob("*.png"):
        path.write_bytes(b"no photo")
    CALIBRATED.unlink()
    done = birdsonnx(*CALIBRATE)
    assert done.returncode == 2
    assert not CALIBRATED.exists()


def test_few_photos_all_right_are_said():
    wrong = {each["name"] for each in succeed_json("evaluate", "data/valid", "--model", MODEL)["wrong"]}
    photos = sorted(Path("data/valid").rglob("*.png"))
    right = [path for path in photos if path.relative_to("data/valid").as_posix() not in wrong]
    for path in {*photos} - {right[0], right[-1]}:
        path.unlink()
    done = succeed_json(*CALIBRATE, "--precision", "0.9")
    assert (done["photos"], done["before"]["accuracy"]) == (2, 1)
    assert done["temperature_at_bound"]
    assert done["temperature"] == 1 or done["after"]["calibration_error"] == pytest.approx(1 / 4, abs=1e-3)
    few, bound = done["notes"]
    assert few.startswith("2 photos are few")
    assert "all 2 photos are named rightly" in bound
    assert done["thresholds"]["values"] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--precision", "0"], "--precision 0"),
        (["--precision", "1.5"], "--precision 1.5"),
        (["--precision", "nan"], "--precision nan"),
        (["--plot", "curves.docx"], "a plot is a"),
        (["-o", str(MODEL)], "is the model itself"),
        (["--engine", "abacus"], "--engine 'abacus'"),
        (["--tag", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    assert said in refused("calibrate", MODEL, "--validate", "data/valid", *words)
    assert not CALIBRATED.exists()


def test_other_classes_are_refused():
    make_class_folders(Path("other"), ("ANT BIRD", "DODO"), per_class=2)
    assert "DODO" in refused("calibrate", MODEL, "--validate", "other")


def test_a_model_that_overflows_is_refused():
    model = tiny_model(3, CLASSES)
    for tensor in model.proto.graph.initializer:
        if tensor.name in ("conv2/kernel", "dense/kernel"):
            values = np.frombuffer(tensor.raw_data, np.float32) * np.float32(1e30)
            tensor.raw_data = values.tobytes()
    model.save(Path("large.onnx"))
    done = birdsonnx("calibrate", "large.onnx", "--validate", "data/valid")
    assert done.returncode == 2
    assert "NaN or infinity" in done.stderr
    assert not Path("large.calibrated.onnx").exists()


def test_thresholds_need_class_names():
    tiny_model(3).save(Path("nameless.onnx"))
    line = refused("calibrate", "nameless.onnx", "--validate", "data/valid", "--precision", "0.9")
    assert "no class names" in line


# --- What goes on from there ------------------------------------------------------------------------------


def test_int8_keeps_it():
    succeed(*CALIBRATE, "--precision", "0.9")
    done = succeed_json("quantize", "--calibrate", "data/train")  # the calibrated one, as the newest
    int8 = Path(done["output"])
    assert int8.name == "model_checkpoint_4.calibrated.int8.onnx"
    ours, theirs = (model_file.load(path).metadata for path in (int8, CALIBRATED))
    assert ours.calibration == theirs.calibration
    assert ours.thresholds == theirs.thresholds
    exact, found = log_probs(CALIBRATED), log_probs(int8)
    assert max(np.abs(np.exp(found[name]) - np.exp(exact[name])).max() for name in exact) < 0.1
    assert succeed_json("predict", "data/valid", "--precision", "int8")["model"] == str(int8)
    temperature = succeed_json("calibrate", int8, "--validate", "data/valid", "-o", "x.onnx")["temperature"]
    assert temperature == pytest.approx(1, abs=0.2)


def test_the_newest_checkpoint_is_taken_calibrated_while_it_fits():
    succeed(*CALIBRATE)
    text = succeed("evaluate", "data/valid")
    assert f"model {CALIBRATED}: the calibrated form of {MODEL.name} beside it" in text
    tiny_model(3, CLASSES, seed=5).save(Path("start.onnx"))
    succeed("train", config())
    assert succeed_json("evaluate", "data/valid")["model"] == str(MODEL)


def test_training_drops_what_it_changes():
    succeed(*CALIBRATE, "--precision", "0.9")
    shutil.copy(CALIBRATED, "start.onnx")
    text = succeed("train", config(), "--set", "checkpoints.save=more")
    said = "start.onnx: the calibration of its probabilities and its thresholds are left out, since its"
    assert sum(said in line for line in text.splitlines()) == 1
    metadata = model_file.load(Path("more/model_checkpoint_4.onnx")).metadata
    assert metadata.calibration is metadata.thresholds is None


def test_another_normalize_drops_it_too():
    succeed(*CALIBRATE, "--precision", "0.9")
    data = {
        "test_input_path": "data/valid",
        "transforms": [{"resize": [SIZE, SIZE]}, {"normalize": {"mean": [0.5], "std": [0.5]}}],
    }
    network = {"data": data, "checkpoints": {"load": str(CALIBRATED)}}
    Path("predict.json").write_text(json.dumps({"neural_network": network}))
    text = succeed("predict", "--config", "predict.json")
    assert "are left out, since 'normalize' changes its input" in text


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_calibrates(ranks):
    text = succeed("train", config(calibrate=True, quantize=True), ranks=ranks)
    done = json.loads(succeed("calibrate", MODEL, "--validate", "data/valid", "-o", "x.onnx", "--json"))
    calibration = model_file.load(CALIBRATED).metadata.calibration
    assert calibration["temperature"] == pytest.approx(done["temperature"], rel=1e-3)
    assert calibration["photos"] == 36
    assert f"calibrated {CALIBRATED}" in text
    int8 = CALIBRATED.with_suffix(".int8.onnx")
    assert model_file.load(int8).metadata.calibration == calibration
    assert f"birdsonnx predict PHOTOS --model {CALIBRATED}" in text
    assert not Path(MODEL.with_suffix(".int8.onnx")).exists()


def test_training_that_cannot_calibrate_is_refused():
    line = refused("train", config(calibrate=True), "--set", "checkpoints.save=null")
    assert "birdsonnx.calibrate" in line
    network = json.loads(Path(config(calibrate=True)).read_text())
    del network["neural_network"]["data"]["test_input_path"]
    Path("config.json").write_text(json.dumps(network))
    line = refused("train", "config.json")
    assert "birdsonnx.calibrate: there are no photos to calibrate on" in line
