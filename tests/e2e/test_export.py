"""`export` as a user runs it, then a training from the Keras file itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from tests.command import refused, succeed, succeed_json
from tests.networks import keras_answers

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # TensorFlow's own imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def network(workspace):
    """A Keras classifier for the workspace's three classes, its head trainable."""
    from birdsonnx.keras_io.tf2onnx_road.keras_source import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 5, strides=2, name="conv1", trainable=False)(inputs)
    x = layers.BatchNormalization(name="bn1", trainable=False)(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(x))
    model.save("network.keras")
    return model


def test_the_same_network_gives_the_same_complete_file(network):
    words = ("export", "network.keras", "--preprocess", "caffe", "--labels", "data/train")
    said = succeed_json(*words, "-o", "one.onnx")
    succeed(*words, "-o", "two.onnx", fresh=True)
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    assert max(said["parity"].values()) <= 1e-4

    onnx.checker.check_model("one.onnx", full_check=True)
    photo = np.asarray(Image.open("data/train/COOT/000.png").convert("RGB"))[None]
    session = onnxruntime.InferenceSession("one.onnx", providers=["CPUExecutionProvider"])
    caffe = photo[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    expected = np.log(keras_answers(network, caffe))
    np.testing.assert_allclose(session.run(None, {"images": photo})[0], expected, atol=1e-4)


def test_refusals_of_export(network):
    assert "--preprocess" in refused("export", "network.keras", "-o", "x.onnx")
    assert "--classes 5" in refused("export", "network.keras", "--preprocess", "tf", "--classes", "5")
    Path("network.keras").write_bytes(Path("network.keras").read_bytes()[:2000])
    assert "network.keras" in refused("export", "network.keras", "--preprocess", "tf")
    offline = {"KERAS_HOME": "empty", "https_proxy": "http://127.0.0.1:9"}
    message = refused("export", "-o", "x.onnx", environment=offline, fresh=True)
    assert "--weights FILE" in message
    assert "--weights none" in message
    assert not Path("x.onnx").exists()


def test_any_network_of_keras_applications_by_name(workspace):
    names = succeed("export", "--arch", "list").split()
    assert {"ResNet50", "MobileNetV2", "ConvNeXtTiny"} <= set(names)
    assert succeed_json("export", "--arch", "list") == {"architectures": names}

    words = ("--weights", "none", "--size", "48x32", "--channels", "1", "--labels", "data/train")
    said = succeed_json("export", "--arch", "mobileNETv2", *words)
    assert said["output"] == "models/mobilenetv2_birds.onnx"
    assert (said["classes"], said["preprocessing"], said["trainable"]) == (3, "unit", ["dense"])
    assert any("takes one channel, values in [0, 1]" in note for note in said["notes"])
    [images] = onnx.load(said["output"]).graph.input
    assert [dim.dim_value for dim in images.type.tensor_type.shape.dim][1:] == [32, 48, 1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--arch", "resnet51"],
            "and a network of your own is a SOURCE file; did you mean 'ResNet50'?",
        ),
        (["--size", "big"], "--size big: give a side such as 160"),
        (["--size", "16", "--weights", "none"], "at least 32x32"),
        (["--channels", "2", "--weights", "none"], "--channels 2: choose 1 (grayscale) or 3"),
        (["--channels", "1", "--weights", "none", "--preprocess", "caffe"], "caffe preprocessing needs 3"),
        (["own.h5", "--arch", "vgg16"], "--arch vgg16 is for a network without SOURCE"),
        (["own.h5", "--size", "64"], "--size 64 is for a network of --arch"),
        (["--layers", "own.json", "--channels", "3"], "--channels 3 is for a network of --arch"),
    ],
)
def test_refusals_of_networks_by_name(workspace, words, expected):
    assert expected in refused("export", *words)
    assert not Path("models").exists()


def test_nothing_changes_the_head_of_a_file(network):
    """Neither --classes nor --labels: both are only compared."""
    Path("layers.json").write_text(network.to_json())
    for folder in ("JUNCO", "WREN"):
        (Path("more") / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("more") / folder / "0.png")
    from_json = ("--layers", "layers.json", "--weights", "none", "--preprocess", "tf")
    for words in (from_json, ("network.keras", "--preprocess", "tf")):
        file = "layers.json" if words is from_json else "network.keras"
        assert f"--labels more has 2, but {file} has 3 classes" in refused(
            "export", *words, "--labels", "more"
        )
        assert "--classes 7, but " in refused("export", *words, "--classes", "7")
    said = succeed_json("export", *from_json, "--labels", "data/train", "-o", "three.onnx")
    assert said["classes"] == 3


def test_training_from_the_keras_file_on_two_ranks(network, training_config):
    network.save("network.h5")
    config = training_config(checkpoints={"load": "network.h5", "save": "saved/", "interval": 3})
    Path("config.json").write_text(json.dumps(config))
    assert "not recognised" in refused("train", "config.json", ranks=2)

    config["neural_network"]["data"]["transforms"] = [{"normalize": {"mean": 0.5, "std": 0.5}}]
    Path("config.json").write_text(json.dumps(config))
    assert "preprocessing: normalize" in succeed("train", "config.json", ranks=2)
    trained = onnx.load("saved/model_checkpoint_3.onnx")
    photo = np.asarray(Image.open("data/train/COOT/000.png").convert("RGB"))[None]
    [found] = onnxruntime.InferenceSession(trained.SerializeToString()).run(None, {"images": photo})
    dense = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in trained.graph.initializer}
    network.get_layer("dense").set_weights([dense["dense/kernel"], dense["dense/bias"]])
    expected = np.log(keras_answers(network, (photo / 255 - 0.5) / 0.5))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_trained_weights_go_back_to_keras(network, training_config):
    words = ("export", "network.keras", "--preprocess", "torch", "--save-layers", "layers.json")
    succeed(*words, "-o", "model.onnx")
    config = training_config(birdsonnx={"trainable": ["*"]})
    Path("config.json").write_text(json.dumps(config))
    succeed("train", "config.json")

    checkpoint = "saved/model_checkpoint_3.onnx"
    back = ("export", "--to", "keras", checkpoint, "--layers", "layers.json")
    said = succeed_json(*back, "-o", "back.keras")
    assert said["preprocessing"]["name"] == "torch"
    assert max(said["parity"].values()) <= 1e-4
    assert "wrote          saved/model_checkpoint_3.keras" in succeed(*back)

    import keras

    photos = np.stack([np.asarray(Image.open(path)) for path in sorted(Path("data/valid/COOT").iterdir())])
    returned = keras.models.load_model("back.keras", compile=False)
    values = keras.applications.imagenet_utils.preprocess_input(photos.astype(np.float32), mode="torch")
    found = np.log(keras_answers(returned, values))
    session = onnxruntime.InferenceSession(checkpoint, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(None, {"images": photos})[0], rtol=1e-5, atol=1e-4)
    assert np.abs(returned.get_layer("conv1").kernel - network.get_layer("conv1").kernel).max() > 1e-3


def test_the_way_back_needs_the_onnx_alone(network, training_config):
    """It holds the Keras network, also after a training; --layers takes its place."""
    succeed(
        "export", "network.keras", "--preprocess", "caffe", "--save-layers", "layers.json", "-o", "model.onnx"
    )
    Path("config.json").write_text(json.dumps(training_config()))
    succeed("train", "config.json")
    checkpoint = "saved/model_checkpoint_3.onnx"
    assert succeed_json("info", checkpoint)["keras_network"]
    back = ("export", "--to", "keras", checkpoint)
    said = succeed_json(*back, "-o", "alone.h5")
    assert max(said["parity"].values()) <= 1e-4
    succeed(*back, "--layers", "layers.json", "-o", "given.h5")
    assert Path("alone.h5").read_bytes() == Path("given.h5").read_bytes()
    succeed("export", "alone.h5", "--preprocess", "caffe", "-o", "again.onnx")
    once, again = (
        onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"]).run(
            None, {"images": np.full((1, 32, 32, 3), 90, np.uint8)}
        )[0]
        for name in (checkpoint, "again.onnx")
    )
    np.testing.assert_allclose(once, again, rtol=1e-5, atol=1e-5)

    older = onnx.load(checkpoint)
    kept = [each for each in older.metadata_props if each.key != "birdsonnx.network"]
    del older.metadata_props[:]
    older.metadata_props.extend(kept)
    onnx.save(older, "older.onnx")
    assert "--to keras older.onnx --layers layers.json" in refused("export", "--to", "keras", "older.onnx")


def test_what_an_export_is_to_be_trained_on_is_said(workspace):
    words = ("export", "--arch", "mobilenetv2", "--weights", "none", "--size", "32", "-o", "m.onnx")
    text = succeed(*words)
    assert "400 classes without names: neither --labels nor --classes is given" in text
    text = succeed(*words, "--labels", "data/train")
    assert "without names" not in text
    assert text.splitlines()[-1] == "next:  birdsonnx train --data data --model m.onnx"
    assert "without names" not in succeed(*words, "--classes", "5")


def test_refusals_on_the_way_back(network):
    words = ("export", "network.keras", "--preprocess", "tf", "--save-layers", "layers.json")
    succeed(*words, "-o", "model.onnx")
    back = ("export", "--to", "keras", "model.onnx")
    assert "needs an .onnx" in refused("export", "--to", "keras")
    assert "--seed has no meaning" in refused(*back, "--layers", "layers.json", "--seed", "0")
    assert ".keras or .h5" in refused(*back, "--layers", "layers.json", "-o", "back.onnx")
    assert "--to 'kears' is none of onnx, keras; did you mean 'keras'?" in refused("export", "--to", "kears")
    assert "without its weights" in refused("export", "layers.json", "--to", "keras", "--layers", "x")

    other = json.loads(Path("layers.json").read_text())
    [dense] = [layer for layer in other["config"]["layers"] if layer["class_name"] == "Dense"]
    dense["config"]["units"] = 4
    Path("other.json").write_text(json.dumps(other))
    Path("back.keras").write_bytes(b"old")
    message = refused(*back, "--layers", "other.json", "-o", "back.keras")
    assert "'dense/kernel' has no place" in message
    assert Path("back.keras").read_bytes() == b"old"
    assert not list(Path().glob(".*.tmp*"))


WITHOUT_KERAS = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "tensorflow", "tf2onnx", "tf_keras"):
            raise ImportError(f"no {name} here")
sys.meta_path.insert(0, Refused())
from birdsonnx.cli.app import main
main()
"""


def test_export_and_training_without_keras(network, training_config):
    """The base install has neither Keras nor TensorFlow: files of Keras are read all the same."""
    command = [sys.executable, "-c", WITHOUT_KERAS, "export", "network.keras", "--preprocess", "unit"]
    done = subprocess.run([*command, "-o", "m.onnx", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["parity"] is None
    assert said["parity_not_checked"].startswith("Keras is not installed; for the comparison: pip install ")
    again = succeed_json("export", "network.keras", "--preprocess", "unit", "-o", "with.onnx")
    assert max(again["parity"].values()) < 1e-4
    assert Path("with.onnx").read_bytes() == Path("m.onnx").read_bytes()

    words = ["--converter", "tf2onnx", "--preprocess", "unit", "-o", "old.onnx"]
    succeed("export", "network.keras", *words)
    photos = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    ours, old = (
        onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"]).run(None, {"images": photos})[
            0
        ]
        for name in ("m.onnx", "old.onnx")
    )
    np.testing.assert_allclose(ours, old, atol=1e-4)
    config = training_config(checkpoints={"load": "network.keras", "save": "saved/", "interval": 3})
    config["neural_network"]["data"]["transforms"] = [{"normalize": {"mean": 0.5, "std": 0.5}}]
    Path("config.json").write_text(json.dumps(config))
    trained = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, "train", "config.json"], capture_output=True, timeout=120
    )
    assert trained.returncode == 0, trained.stderr
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, "export", "network.keras", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "pip install " in done.stderr
    assert "'tf2onnx" in done.stderr
