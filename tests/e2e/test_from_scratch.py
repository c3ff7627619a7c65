"""Networks that a config describes, trained from fresh weights, as a user does it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from birdsonnx.images.folders import read_class_folders
from birdsonnx.keras_io.tf2onnx_road import keras_source
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.digits import lenet, make_digits
from tests.networks import keras_warns

SEED = 1
"""Two orders of float32 sums part for good where one of them lifts a ReLU over 0, or lets the other of two
equal values win a MaxPool: with this seed none does in 250 steps, with seed 0 one in step 30."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The same network is converted once for all tests."""
    return {"cache": str(tmp_path_factory.mktemp("cache")), "seed": SEED}


@pytest.fixture
def config(tmp_path, own):
    """Writes `config.json` for two classes of 100 digits each; keyword arguments replace sections."""
    make_digits(tmp_path / "data/train", 100, seed=1)
    make_digits(tmp_path / "data/test", 40, seed=2)

    def write(layers=None, **sections):
        network = {
            "num_epochs": 10,
            "outfile": "out.txt",
            "layers": lenet() if layers is None else layers,
            "checkpoints": {"save": "saved/", "interval": 10},
            "data": {
                "input_path": "data/train/",
                "test_input_path": "data/test/",
                "batch_size": 8,
                "test_batch_size": 40,
            },
            "optimizer": {"type": "SGD", "learning_rate": 0.01, "momentum": 0.5},
            "loss": {"function": "NLL"},
            "birdsonnx": own,
        }
        network |= sections
        Path("config.json").write_text(json.dumps({"neural_network": network}))
        return "config.json"

    return write


def losses(column=3, log="out_train.txt"):
    return np.loadtxt(log)[:, column]


def test_a_small_network_learns_on_any_number_of_ranks(config):
    curves = {}
    for ranks, epochs in {1: 10, 2: 10, 4: 3}.items():
        text = succeed("train", config(num_epochs=epochs), ranks=ranks)
        assert "dropout:       dropout 0.25" in text
        assert f"ranks:         {ranks} x" in text
        curves[ranks] = losses(), losses(4), losses(2, "out_test.txt")
        if epochs == 10:
            assert losses(3, "out_test.txt")[-1] == 1.0
    for ranks in (2, 4):
        for found, expected in zip(curves[ranks], curves[1], strict=True):
            np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-4, atol=1e-6)


def test_what_is_trained_names_digits_without_tensorflow(config):
    succeed("train", config())
    model = "saved/model_checkpoint_10.onnx"
    found = succeed_json("evaluate", "data/test", "--model", model)
    assert found["accuracy"] == 1.0
    assert found["classes"] == ["0", "1"]
    photos = succeed_json("predict", "data/test/0", "--model", model, "-o", "predictions")
    assert photos["counts"] == {"0": 40}
    quantized = succeed_json("quantize", model, "--calibrate", "data/train", "--validate", "data/test")
    assert Path(quantized["output"]).is_file()


def test_resuming_goes_on_with_the_same_masks(config):
    succeed("train", config(checkpoints={"save": "whole/"}, num_epochs=4))
    succeed("train", config(checkpoints={"save": "parts/"}, num_epochs=2))
    succeed("train", config(checkpoints={"save": "parts/"}, num_epochs=4), "--resume", fresh=True)
    name = "model_checkpoint_4.onnx"
    assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()


def tensors(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer}


def put(network, model):
    """Gives Keras' network the weights of an ONNX file, whose convolutions have their kernels as `OIHW`."""
    arrays = tensors(model)
    for layer in network.layers:
        if layer.weights:
            kernel = arrays[f"{layer.name}/kernel"]
            kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel
            layer.set_weights([kernel, arrays[f"{layer.name}/bias"]])


@keras_warns
def test_a_training_without_dropout_is_keras_own(config):
    """A plain loop over the same batches: Keras' network and gradients, its own optimizer."""
    keras = keras_source.import_keras()
    import tensorflow as tf

    Path("layers.json").write_text(json.dumps(lenet(dropout=0)))
    options = ["--weights", "none", "--preprocess", "unit", "--seed", SEED, "-o", "fresh.onnx"]
    succeed("export", "--layers", "layers.json", *options)
    succeed("train", config(lenet(dropout=0), num_epochs=2))
    found = losses()
    folder = read_class_folders(Path("data/train"))
    pixels = np.stack([np.asarray(Image.open(photo.path)) for photo in folder.photos])[..., None]
    labels = np.array([photo.label for photo in folder.photos])
    network = keras_source.from_layers(lenet(dropout=0), "layers", None, SEED).model
    put(network, "fresh.onnx")
    optimizer = keras.optimizers.SGD(0.01, momentum=0.5)
    expected = []
    for epoch in (1, 2):
        order = np.random.default_rng([SEED, epoch]).permutation(len(labels))
        for start in range(0, len(order), 8):
            batch = order[start : start + 8]
            with tf.GradientTape() as tape:
                log_probs = network(pixels[batch] / np.float32(255), training=True)
                loss = -tf.reduce_mean(tf.gather(log_probs, labels[batch], batch_dims=1))
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
            expected.append(float(loss))
    assert len(expected) == 50
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    trained = tensors("saved/model_checkpoint_2.onnx")
    for layer in network.layers:
        if layer.weights:
            bias = trained[f"{layer.name}/bias"]
            np.testing.assert_allclose(bias, layer.bias, rtol=0, atol=1e-4)
            assert np.any(bias), "it started from zeros and was trained"


def test_a_new_head_on_a_trained_network(config, own):
    """Three classes instead of two: what fits is kept, and the new head learns on its features."""
    succeed("train", config())
    for kind in ("train", "test"):
        source = Path("data", kind, "1")
        Path("data", kind, "2").mkdir()
        for photo in source.iterdir():
            Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(Path("data", kind, "2", photo.name))
    text = succeed(
        "train",
        config(
            lenet(units=3),
            checkpoints={"load": "saved/model_checkpoint_10.pt", "save": "again/"},
            birdsonnx={**own, "trainable": ["dense*"]},
            optimizer={"type": "Adam", "learning_rate": 0.005},
        ),
    )
    assert "weights of 3 layers taken over" in text
    assert "dense_1 (it has 32x2 2, the network 32x3 3): starts from fresh weights" in text
    assert "dropout:       none; 1 before" not in text
    assert losses(3, "out_test.txt")[-1] > 0.95
    refused("evaluate", "data/test", "--model", "saved/model_checkpoint_10.onnx")


def test_export_takes_an_array_too(config):
    Path("layers.json").write_text(json.dumps(lenet()))
    options = ["--weights", "none", "--preprocess", "unit", "--seed", SEED, "-o", "lenet.onnx"]
    assert "parity" in succeed("export", "--layers", "layers.json", *options)
    succeed("train", config("layers.json", checkpoints={"load": "lenet.onnx"}, num_epochs=1))
    loaded = losses()
    succeed("train", config(num_epochs=1))
    np.testing.assert_allclose(losses(), loaded, rtol=1e-5)


REFUSED = {
    "nothing to train": ({"layers": None}, "there is no network to train; give checkpoints.load"),
    "a file that is not there": ({"layers": "absent.json"}, "absent.json: there is no such file"),
    "too many classes": (
        {"layers": lenet(units=10)},
        "neural_network.layers has 10 classes, data/train has 2 class folders; set the units of the last "
        "layer in 'layers' to 2",
    ),
    "no chain": ({"layers": ["Dense"]}, 'neural_network.layers[0]: a layer is an object {"class_name"'),
    "no scores": ({"layers": lenet()[:-4]}, "the network ends in MaxPool; a classifier ends in softmax"),
    "another end": ({"layers": [*lenet(), {"class_name": "ReLU"}]}, "the network ends in Relu"),
    "a number": ({"layers": 3}, "neural_network.layers: must be the path of a Keras JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_one_line(config, case):
    sections, message = REFUSED[case]
    config()
    content = json.loads(Path("config.json").read_text())
    content["neural_network"] |= sections
    Path("config.json").write_text(json.dumps(content))
    assert message in refused("train", "config.json")
    assert not Path("saved").exists()


def test_prediction_refuses_another_network(config):
    succeed("train", config(num_epochs=1))
    data = {"test_input_path": "data/test/"}
    load = {"load": "saved/model_checkpoint_1.onnx"}
    assert "dense_1" in refused("predict", "--config", config(lenet(units=3), checkpoints=load, data=data))
    birdsonnx("predict", "--config", config(checkpoints=load, data=data))


def test_the_shipped_config_runs(config):
    content = json.loads((ROOT / "models/config_train_mnist.json").read_text())
    network = content["neural_network"]
    network["layers"][-1]["config"]["units"] = 2
    network["num_epochs"] = 2
    network["data"] |= {"input_path": "data/train/", "test_input_path": "data/test/"}
    Path("mnist.json").write_text(json.dumps(content))
    result = succeed_json("train", "mnist.json")
    assert result["epochs"][-1]["train_loss"] < result["epochs"][0]["train_loss"]
