"""The Python API: the answers of the command line and of Keras, a light import. Types: `typed_program`."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import birdsonnx
from birdsonnx.errors import BirdsonnxError, ConfigError, DataError, ModelError
from tests.command import MPIRUN, succeed_json
from tests.networks import keras_answers, keras_warns, small_network

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/api.md").read_text()


def test_it_has_four_names_and_a_version():
    assert sorted(birdsonnx.__all__) == ["Model", "__version__", "export", "load", "train"]
    assert set(birdsonnx.__all__) <= set(dir(birdsonnx))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = birdsonnx.nothing


def test_the_import_is_light():
    code = (
        "import sys, birdsonnx\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'pydantic', 'h5py', 'PIL'} & set(sys.modules)))\n"
        "birdsonnx.load\n"
        "print(sorted({'onnx', 'tensorflow', 'mpi4py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_predict_answers_as_the_verb(workspace):
    succeed_json("predict", "data/valid", "--model", "model.onnx", "--top-k", "2")
    model = birdsonnx.load("model.onnx")
    named = model.predict("data/valid", top_k=2)
    with h5py.File("predictions/output_1.h5") as file:
        assert len(named) == file.attrs["photos"] > 3
        for photo in named:
            np.testing.assert_array_equal(photo.log_probs, file[photo.name][()])
            assert photo.log_probs.dtype == np.float32
            assert photo.path == Path("data/valid") / photo.name
            best = np.argsort(-photo.log_probs)[:2]
            assert [name for name, _ in photo.top] == [model.classes[index] for index in best]
            assert (photo.class_name, photo.probability) == photo.top[0]
            assert photo.probability == pytest.approx(np.exp(photo.log_probs.max()))
    assert [photo.name for photo in named] == sorted(photo.name for photo in named)
    assert named.refused == ()
    assert len(named[:2]) == 2
    assert model.input_size == (32, 32, 3)


def test_inputs_are_what_the_verb_takes(workspace):
    model = birdsonnx.load(Path("model.onnx"))
    one = model.predict("data/valid/COOT/000.png")
    assert [photo.name for photo in one] == ["000.png"]
    assert len(model.predict("data/valid/COOT/*.png")) == 3
    both = model.predict([Path("data/valid/COOT/000.png"), "data/valid/COOT/001.png"])
    assert [photo.name for photo in both] == ["000.png", "001.png"]
    assert len(model.predict("data", tag="valid")) < len(model.predict("data"))


def test_refused_photos_are_listed_and_all_of_them_are_an_error(workspace):
    Path("data/valid/COOT/broken.jpg").write_bytes(b"no photo")
    model = birdsonnx.load("model.onnx")
    named = model.predict("data/valid/COOT")
    assert len(named) == 3
    [reason] = named.refused
    assert "broken.jpg" in reason
    with pytest.raises(DataError, match=r"(?s)not one photo.*broken\.jpg"):
        model.predict("data/valid/COOT/broken.jpg")
    with pytest.raises(DataError, match="no such file or folder"):
        model.predict("nothing")
    with pytest.raises(ConfigError, match="top_k=0"):
        model.predict("data/valid", top_k=0)


def test_evaluate_answers_as_the_verb(workspace):
    succeeded = succeed_json("evaluate", "data/valid", "--model", "model.onnx")
    model = birdsonnx.load("model.onnx")
    found = model.evaluate("data/valid")
    assert (found.accuracy, found.loss) == (succeeded["accuracy"], succeeded["loss"])
    assert found.photos == succeeded["photos"]
    Path("data/valid/COOT/broken.jpg").write_bytes(b"no photo")
    with pytest.warns(UserWarning, match=r"broken\.jpg"):
        assert model.evaluate("data/valid").loss == found.loss
    with pytest.raises(DataError, match="no such folder"):
        model.evaluate("nothing")


def test_what_is_no_model_or_cannot_be_done(workspace):
    Path("other.onnx").write_bytes(b"no model")
    for path in ("nothing.onnx", "other.onnx"):
        with pytest.raises(ModelError, match=path):
            birdsonnx.load(path)
    with pytest.raises(ModelError, match="int8"):
        birdsonnx.load("model.onnx", precision="int8")
    with pytest.raises(ConfigError, match="threads=0"):
        birdsonnx.load("model.onnx", threads=0)


def test_train_gives_the_verb_s_losses_from_any_form_of_a_config(workspace, training_config):
    config = training_config()
    Path("config.json").write_text(json.dumps(config))
    verb = succeed_json("train", "config.json")
    from birdsonnx.config.reading import read

    config["neural_network"]["checkpoints"]["save"] = Path("api")
    for given in (config, "config.json", Path("config.json"), read(Path("config.json"))):
        outcome = birdsonnx.train(given)
        assert [epoch.train_loss for epoch in outcome.epochs] == [e["train_loss"] for e in verb["epochs"]]
    assert outcome.epochs[-1].test_accuracy == verb["epochs"][-1]["test_accuracy"]
    assert sorted(path.name for path in Path("api").glob("*.onnx")) == [
        "model_checkpoint_2.onnx",
        "model_checkpoint_3.onnx",
    ]
    assert Path("out_train.txt").is_file()
    assert len(birdsonnx.load(outcome.checkpoints[-1]).predict("data/valid")) > 3


def test_train_says_nothing_unless_it_is_to(workspace, training_config, capsys):
    birdsonnx.train(training_config(num_epochs=1))
    assert capsys.readouterr().out == ""
    birdsonnx.train(training_config(num_epochs=1), verbose=True)
    assert "epoch 1/1  test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"neural_network": {}}, "input_path"),
        ({"neural_network": {"epochs": 3}}, "unknown key"),
        ({"network": {}}, "neural_network"),
        ({"neural_network": {"num_epochs": {1}}}, "no JSON"),
        ({"neural_network": {"optimizer": {"learning_rate": float("nan")}}}, "settings"),
        ("nothing.json", "no such config"),
    ],
)
def test_configs_that_cannot_be_trained_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        birdsonnx.train(settings)


@keras_warns
def test_a_keras_model_in_memory_answers_as_in_keras(keras, tmp_path):
    network = small_network(keras)
    pixels = np.random.default_rng(3).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    names = ["coot", "heron", "1 wren", "owl"]
    model = birdsonnx.export(network, "birds.onnx", labels=names, preprocess="none")
    assert model.classes == tuple(names)
    [photo] = model.predict("photo.png", top_k=4)
    expected = keras_answers(network, pixels[None].astype(np.float32))[0]
    np.testing.assert_allclose(np.exp(photo.log_probs), expected, atol=1e-5)
    assert photo.class_name == names[int(expected.argmax())]

    network.save("saved.keras")
    again = birdsonnx.export("saved.keras", "again.onnx", labels=names, preprocess="none")
    np.testing.assert_array_equal(again.predict("photo.png")[0].log_probs, photo.log_probs)
    for labels, said in ((["a", "b"], "has 2"), (["a"] * 4, "there twice"), (["a"], "two texts or more")):
        with pytest.raises(ConfigError, match=said):
            birdsonnx.export(network, "never.onnx", labels=labels, preprocess="none")
    assert not Path("never.onnx").exists()


class Unsaved:
    name = "mine"

    def save(self, filepath):
        raise ValueError("a layer of\nmy own")


def test_a_model_that_keras_cannot_save_is_one_line():
    with pytest.raises(ModelError, match=r"mine: Keras cannot save it \(a layer of my own\)"):
        birdsonnx.export(Unsaved(), "never.onnx")


@pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun beside this Python")
def test_ranks_share_the_work_and_each_has_the_whole_result(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config()))
    alone = birdsonnx.load("model.onnx")
    Path("program.py").write_text(
        textwrap.dedent("""
            import birdsonnx, json, os, sys
            model = birdsonnx.load("model.onnx")
            named = model.predict("data/valid")
            outcome = birdsonnx.train("config.json")
            said = [[p.name, p.probability] for p in named], model.evaluate("data/valid").loss
            print(json.dumps([*said, [e.train_loss for e in outcome.epochs]]), flush=True)
            if len(sys.argv) > 1:
                model.predict("nothing")
        """)
    )
    command = [str(MPIRUN), "-np", "2", sys.executable, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    one, other = map(json.loads, done.stdout.splitlines())
    assert one == other
    expected = [[photo.name, photo.probability] for photo in alone.predict("data/valid")]
    assert [name for name, _ in one[0]] == [name for name, _ in expected]
    np.testing.assert_allclose([p for _, p in one[0]], [p for _, p in expected], rtol=1e-5)
    losses = [epoch.train_loss for epoch in birdsonnx.train("config.json").epochs]
    np.testing.assert_allclose(one[2], losses, rtol=1e-4)
    done = subprocess.run([*command, "fail"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "no such file or folder" in done.stderr


@keras_warns
def test_the_code_of_the_page_runs(keras, workspace):
    Path("model.onnx").rename("birds.onnx")
    Path("photos").mkdir()
    for number, name in enumerate(("one", "two")):
        Path(f"data/valid/COOT/00{number}.png").rename(f"photos/{name}.jpg")
    scope: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, scope)
    assert issubclass(BirdsonnxError, Exception)
    assert scope["model"].classes == ("COOT", "HERON", "WREN")
