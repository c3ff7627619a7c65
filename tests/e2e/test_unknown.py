"""The output `known` as a user meets it: calibrate gives it, evaluate measures it, and the other verbs work
with a model of two outputs."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest
from PIL import Image

import birdsonnx as api
from birdsonnx.model import model_file
from birdsonnx.model.metadata import KNOWN, OUTPUT
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.tiny import SIZE, make_class_folders, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
NETWORK = {
    "num_epochs": 4,
    "checkpoints": {"load": "start.onnx", "save": "saved"},
    "data": {"input_path": "data/train", "test_input_path": "data/valid", "batch_size": 6},
    "optimizer": {"type": "Adam", "learning_rate": 0.02},
    "birdsonnx": {"cache": "kept"},
}
TRAINED = Path("saved/model_checkpoint_4.onnx")
KNOWING = Path("knowing.onnx")
CALIBRATE = ("calibrate", TRAINED, "--validate", "data/valid", "--known", "data/train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_class_folders(folder / "data/train", per_class=8, seed=1)
    make_class_folders(folder / "data/valid", per_class=20, seed=2)
    make_class_folders(folder / "data/test", per_class=6, seed=3)
    others = folder / "others/deeper"
    others.mkdir(parents=True)
    for number in range(10):  # what no class shows: plain photos, and stripes
        pixels = np.full((SIZE, SIZE, 3), 25 * number, np.uint8)
        pixels[:: 2 + number] = 255 - 25 * number
        Image.fromarray(pixels).save(others / f"{number}.png")
    tiny_model(3, CLASSES).save(folder / "start.onnx")
    (folder / "config.json").write_text(json.dumps({"neural_network": NETWORK}))
    succeed("train", "config.json", cwd=folder)
    succeed(*CALIBRATE, "-o", KNOWING, cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def own(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def answers(model: Path, folder: str) -> dict[str, tuple[np.ndarray, float]]:
    """By the runtime alone."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found = {}
    for path in sorted(Path(folder).rglob("*.png")):
        log_probs, known = session.run([OUTPUT, KNOWN], {"images": np.asarray(Image.open(path))[None]})
        found[str(path)] = log_probs[0], float(known[0])
    return found


def features(folder: Path | str) -> dict[str, np.ndarray]:
    """Of the trained network, at length 1 as roots."""
    proto = model_file.load(TRAINED).proto
    del proto.graph.output[:]
    proto.graph.output.add(name="s")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = {}
    for path in sorted(Path(folder).rglob("*.png")):
        [[x]] = session.run(None, {"images": np.asarray(Image.open(path))[None]})
        root = np.sqrt(x.astype(np.float64))
        found[str(path)] = root / np.linalg.norm(root)
    return found


def by_hand(photo: np.ndarray, means: np.ndarray) -> float:
    return float(max(photo @ mean / np.linalg.norm(mean) for mean in means))


# --- calibrate ------------------------------------------------------------------------------------------


def test_it_is_what_the_page_says():
    training, valid = features("data/train"), features("data/valid")
    means = np.array(
        [np.mean([x for path, x in training.items() if f"/{name}/" in path], axis=0) for name in CLASSES]
    )
    alike = {path: by_hand(x, means) for path, x in valid.items()}
    plain = answers_before()
    top = {path: float(plain[path].max()) for path in valid}
    scale = max(np.std(list(top.values())), 0.1)
    spread = max(np.std(list(alike.values())), 1e-3)
    wanted = {
        path: (top[path] - np.mean(list(top.values()))) / scale
        + 2 * (alike[path] - np.mean(list(alike.values()))) / spread
        for path in valid
    }
    found = answers(KNOWING, "data/valid")
    for path, value in wanted.items():
        assert found[path][1] == pytest.approx(value, abs=2e-3)
    known = model_file.load(KNOWING).metadata.known
    assert known["kept"] == 0.95 == np.mean([found[path][1] >= known["threshold"] for path in valid])
    assert known["photos"] == 60
    assert known["training_photos"] == 24


def answers_before() -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(TRAINED), providers=["CPUExecutionProvider"])
    paths = sorted(Path("data/valid").rglob("*.png"))
    return {
        str(path): session.run(None, {"images": np.asarray(Image.open(path))[None]})[0][0] for path in paths
    }


def test_the_share_to_keep_is_taken_and_said():
    found = succeed_json(*CALIBRATE, "--keep", "0.8", "-o", "k.onnx")
    assert found["known"]["kept"] == 0.8
    assert found["known"]["threshold"] == model_file.load(Path("k.onnx")).metadata.known["threshold"]
    assert "keeps 0.8000 of the 60 photos" in succeed(*CALIBRATE, "--keep", "0.8", "-o", "k2.onnx")


def test_two_ranks_write_the_same_bytes():
    assert birdsonnx(*CALIBRATE, "-o", "two.onnx", ranks=2).returncode == 0
    assert Path("two.onnx").read_bytes() == KNOWING.read_bytes()


def test_calibrating_once_more_keeps_it_and_known_again_replaces_it():
    succeed("calibrate", KNOWING, "--validate", "data/valid", "-o", "again.onnx")
    before, after = answers(KNOWING, "data/valid"), answers(Path("again.onnx"), "data/valid")
    assert [known for _, known in before.values()] == [known for _, known in after.values()]
    succeed("calibrate", KNOWING, *CALIBRATE[2:], "-o", "anew.onnx")
    assert [each.name for each in model_file.load(Path("anew.onnx")).proto.graph.output] == [OUTPUT, KNOWN]


def test_what_the_replaced_file_had_and_the_new_one_has_not_is_said():
    succeed(*CALIBRATE, "--precision", "0.9")
    said = succeed(*CALIBRATE[:4])
    lost = "had thresholds (--precision) and the output known (--known), which the new file has not"
    assert lost in " ".join(said.split())
    assert "which the new file has not" not in succeed(*CALIBRATE[:4])


def test_bad_training_photos_are_listed():
    Path("data/train/COOT/bad.png").write_bytes(b"no photo")
    done = birdsonnx(*CALIBRATE, "-o", "k.onnx")
    assert done.returncode == 1
    assert "bad.png" in done.stderr
    assert model_file.load(Path("k.onnx")).metadata.known["training_photos"] == 24


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_class_without_a_photo_that_can_be_used_is_refused(ranks):
    for path in Path("data/train/COOT").iterdir():
        path.write_bytes(b"no photo")
    done = birdsonnx(*CALIBRATE, "-o", "k.onnx", ranks=ranks)
    assert done.returncode == 2
    assert "not one photo of 1 of the 3 classes can be used, such as 'COOT'" in done.stderr
    assert not Path("k.onnx").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*CALIBRATE, "--keep", "0"), "--keep 0: give a share above 0"),
        ((*CALIBRATE, "--keep", "nan"), "--keep nan: give a share"),
        ((*CALIBRATE[:4], "--keep", "0.9"), "--keep is for the threshold of --known DIR"),
        ((*CALIBRATE[:4], "--known", "nowhere"), "nowhere"),
        ((*CALIBRATE[:4], "--known", "others"), "others"),
        ((*CALIBRATE[:4], "--known", "data/valid"), "60 of its photos are photos of --validate"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    assert said in refused(*words, "-o", "k.onnx")
    assert not Path("k.onnx").exists()


# --- evaluate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluate_measures_it(ranks):
    done = birdsonnx(
        "evaluate", "data/test", "--model", KNOWING, "--unknown", "others", "--json", ranks=ranks
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["unknown"]
    known = [value for _, value in answers(KNOWING, "data/test").values()]
    other = [value for _, value in answers(KNOWING, "others").values()]
    threshold = model_file.load(KNOWING).metadata.known["threshold"]
    pairs = [(a > b) + (a == b) / 2 for a in known for b in other]
    assert found == {
        "photos": 10,
        "auroc": pytest.approx(np.mean(pairs)),
        "threshold": threshold,
        "unknown_refused": np.mean([value < threshold for value in other]),
        "known_kept": np.mean([value >= threshold for value in known]),
    }
    assert found["auroc"] > 0.9


def test_evaluate_says_it_to_people_and_lists_bad_photos():
    assert "AUROC" in succeed("evaluate", "data/test", "--model", KNOWING, "--unknown", "others")
    Path("others/bad.jpg").write_bytes(b"no photo")
    done = birdsonnx("evaluate", "data/test", "--model", KNOWING, "--unknown", "others")
    assert done.returncode == 1
    assert "bad.jpg" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data/test", "--model", TRAINED, "--unknown", "others"), "it has no output 'known'"),
        (("data/test", "--model", KNOWING, "--unknown", "nowhere"), "there is no such folder"),
        (
            ("data/test", "--model", KNOWING, "--unknown", "data"),
            "18 of its photos are photos of the classes",
        ),
    ],
)
def test_evaluate_refuses(words, said):
    assert said in refused("evaluate", *words)


def test_predictions_in_a_file_have_no_model_to_ask():
    succeed("predict", "data/test", "--model", KNOWING)
    said = refused("evaluate", "predictions/output_1.h5", "--unknown", "others")
    assert "--unknown is for a folder" in said


# --- The other verbs --------------------------------------------------------------------------------------


def test_predictions_and_the_api_are_those_of_the_file():
    wanted = answers(KNOWING, "data/test")
    succeed("predict", "data/test", "--model", KNOWING, "-o", "p")
    with h5py.File("p/output_1.h5") as file:
        for path, (log_probs, _) in wanted.items():
            name = path.removeprefix("data/test/")
            np.testing.assert_allclose(file[name][()], log_probs, atol=1e-5)
    model = api.load(KNOWING)
    found = model.predict("data/test")
    for each in found:
        assert each.known == pytest.approx(wanted[str(each.path)][1], abs=1e-3)
    assert model.known_threshold == model_file.load(KNOWING).metadata.known["threshold"]
    assert api.load(TRAINED).predict("data/test")[0].known is None
    assert api.load(TRAINED).known_threshold is None


def test_int8_keeps_it_with_a_threshold_of_its_own():
    succeed("quantize", KNOWING, "--calibrate", "data/train", "-o", "k.int8.onnx", "--min-agreement", "0.5")
    model = model_file.load(Path("k.int8.onnx"))
    exact = model_file.load(KNOWING).metadata.known
    values = {  # of both forms, of the photos that int8 was calibrated with
        form: np.array([known for _, known in answers(form, "data/train").values()])
        for form in (KNOWING, Path("k.int8.onnx"))
    }
    shift = float((values[Path("k.int8.onnx")] - values[KNOWING]).mean())
    found = dict(model.metadata.known)
    assert found.pop("threshold") == pytest.approx(exact["threshold"] + shift, abs=1e-3)
    assert found.items() < exact.items()
    quantized = {name for node in model.proto.graph.node if "Linear" in node.op_type for name in node.output}
    assert quantized
    assert not any(name.startswith("known/") for name in quantized)
    assert np.corrcoef(*values.values())[0, 1] > 0.9


def test_training_on_drops_it():
    config = {**NETWORK, "num_epochs": 1, "checkpoints": {"load": str(KNOWING), "save": "on"}}
    Path("on.json").write_text(json.dumps({"neural_network": config}))
    assert "its output 'known'" in succeed("train", "on.json")
    trained = model_file.load(Path("on/model_checkpoint_1.onnx"))
    assert trained.metadata.known is None
    assert [each.name for each in trained.proto.graph.output] == [OUTPUT]
    assert not any(tensor.name.startswith("known/") for tensor in trained.proto.graph.initializer)


def test_info_benchmark_and_report_take_it():
    assert succeed_json("info", KNOWING)["known"]["kept"] == 0.95
    assert "known          " in succeed("info", KNOWING)
    assert "no such output" in succeed("info", TRAINED)
    succeed("benchmark", KNOWING, "--seconds", "2", "--batch-sizes", "4", "--threads", "1")


def test_openvino_gives_both_by_name():
    pytest.importorskip("openvino")
    found = api.load(KNOWING, engine="openvino").predict("data/test")
    wanted = answers(KNOWING, "data/test")
    for each in found:
        log_probs, known = wanted[str(each.path)]
        np.testing.assert_allclose(each.log_probs, log_probs, atol=1e-3)
        assert each.known == pytest.approx(known, abs=0.02)
