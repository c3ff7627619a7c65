"""What is read from Keras files, and what is refused before anything of it runs."""

import json
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.tf2onnx_road import keras_source
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork, layers_of, parameters_of
from tests.networks import keras_2_json, keras_answers, keras_warns, small_network

pytestmark = keras_warns

PIXELS = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["small.keras", "small.h5"])
def test_a_full_model_comes_back(network, name):
    network.save(name)
    read = keras_source.full_model(Path(name))
    np.testing.assert_array_equal(keras_answers(read.model, PIXELS), keras_answers(network, PIXELS))
    assert read.source["file"] == name


@pytest.mark.parametrize("name", ["weights.h5", "small.h5", "small.keras", "small.weights.h5"])
def test_a_json_with_weights_by_layer_name(network, name):
    if name == "weights.h5":  # the old format of weights alone: one group per layer
        with h5py.File(name, "w") as file:
            weighted = [layer for layer in network.layers if layer.weights]
            file.attrs["layer_names"] = [layer.name for layer in weighted]
            for layer in weighted:
                group = file.create_group(layer.name)
                group.attrs["weight_names"] = [f"{layer.name}/{i}" for i in range(len(layer.weights))]
                for index, value in enumerate(layer.get_weights()):
                    group[f"{layer.name}/{index}"] = value
    elif name == "small.weights.h5":
        network.save_weights(name)
    else:
        network.save(name)
    read = keras_source.from_layers(json.loads(network.to_json()), "layers.json", Path(name), seed=1)
    np.testing.assert_array_equal(keras_answers(read.model, PIXELS), keras_answers(network, PIXELS))


def test_a_json_of_keras_2_with_weights_by_layer_name(network):
    network.save("small.h5")
    config = keras_2_json(network)
    assert "module" not in json.dumps(config)
    read = keras_source.from_layers(config, "old.json", Path("small.h5"), seed=0)
    np.testing.assert_array_equal(keras_answers(read.model, PIXELS), keras_answers(network, PIXELS))
    assert read.notes == []


def test_layers_in_names_classes_and_widths(network):
    found = keras_source.layers_in(keras_2_json(network), "l.json")
    assert found == keras_source.layers_in(json.loads(network.to_json()), "l.json")
    assert [layer for layer in found if layer[2] is not None] == [
        ("stem_conv", "Conv2D", 8),
        ("block_conv", "Conv2D", 8),
        ("dense", "Dense", 4),
    ]


def test_fresh_heads_are_noted_and_frozen_layers_must_get_weights(keras, network):
    network.save("small.h5")
    wider = small_network(keras, units=9)
    read = keras_source.from_layers(json.loads(wider.to_json()), "l.json", Path("small.h5"), seed=0)
    assert read.notes == ["dense (it has 8x4 4, the network 8x9 9): starts from fresh weights"]
    config = json.loads(wider.to_json())
    for layer in config["config"]["layers"]:
        if layer["config"]["name"] == "dense":
            layer["config"]["trainable"] = False
    with pytest.raises(ModelError, match="frozen layers get no weights: dense"):
        keras_source.from_layers(config, "l.json", Path("small.h5"), seed=0)


def test_a_seed_decides_the_fresh_weights(keras, network):
    config = json.loads(network.to_json())
    kernels = [
        keras_source.from_layers(config, "l.json", None, seed).model.get_layer("dense").get_weights()[0]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 0.01


def test_facts(network):
    found = KerasNetwork(network, {})
    counts = parameters_of(found)
    assert (counts.total, counts.statistics) == (network.count_params(), 2 * (8 + 8))
    assert counts.trainable == 8 * 4 + 4
    assert [layer.name for layer in layers_of(found) if layer.trainable] == ["dense"]
    assert [layer.name for layer in found.all_layers] == [layer.name for layer in network.layers]


def leave_a_mark(x):
    Path("ran").touch()
    return x


@pytest.fixture
def harmful(keras):
    """A model whose Lambda leaves a file where it runs."""
    layers = [keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()]
    layers += [keras.layers.Lambda(leave_a_mark, name="harmful", output_shape=(3,)), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model(np.zeros((1, 4, 4, 3), np.float32))
    Path("ran").unlink(missing_ok=True)
    return model


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
def test_a_lambda_layer_runs_nothing(harmful, name):
    harmful.save(name)
    Path("ran").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="'harmful' is a Lambda, which runs code from the file"):
        keras_source.full_model(Path(name))
    assert not Path("ran").exists()


def test_a_lambda_layer_of_a_json_runs_nothing(harmful):
    config = json.loads(harmful.to_json())
    with pytest.raises(ModelError, match="'harmful' is a Lambda, which runs code from the file"):
        keras_source.from_layers(config, "lambda.json", None, seed=0)
    assert not Path("ran").exists()


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("name", ["bomb.h5", "bomb.keras", "bomb.weights.h5"])
def test_a_pickle_runs_nothing(network, name):
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=name):
        keras_source.full_model(Path(name))
    with pytest.raises(ModelError, match=name):
        keras_source.from_layers(json.loads(network.to_json()), "l.json", Path(name), seed=0)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_name": "Evil"}, "class 'Evil', which is not Keras' own"),
        ({"class_name": "Dense", "module": "os"}, "'Dense', which is not Keras' own"),
        ({"class_name": "Dense", "module": "keras_evil.layers"}, "'Dense', which is not Keras' own"),
        ({"class_name": "TFSMLayer"}, "TFSMLayer, which runs code"),
        ({"class_name": "TorchModuleWrapper"}, "TorchModuleWrapper, which runs code"),
        ({"class_name": "Map", "module": "keras.src.ops.core"}, "'Map', which is not Keras' own"),
        ({"class_name": "GetItem", "module": "os"}, "'GetItem', which is not Keras' own"),
        (
            {"class_name": "LayerScale", "module": "keras.src.ops.numpy"},
            "'LayerScale', which is not Keras' own",
        ),
    ],
)
def test_foreign_classes_are_refused(network, change, message):
    config = json.loads(network.to_json())
    config["config"]["layers"][-1].update(change)
    with pytest.raises(ModelError, match=message):
        keras_source.from_layers(config, "l.json", None, seed=0)


def test_a_foreign_class_inside_a_layer_is_refused(network):
    config = json.loads(network.to_json())
    activation = {"module": "builtins", "class_name": "function", "config": "system"}
    config["config"]["layers"][-1]["config"]["activation"] = activation
    with pytest.raises(ModelError, match="layer 'dense' is a function, which runs code"):
        keras_source.from_layers(config, "l.json", None, seed=0)


@pytest.mark.parametrize("kind", ["external", "soft", "virtual", "stored elsewhere"])
def test_data_from_elsewhere_is_refused(network, kind):
    network.save("small.h5")
    with h5py.File("other.h5", "w") as other:
        other["secret"] = np.arange(3.0)
    with h5py.File("small.h5", "a") as file:
        if kind == "external":
            file["model_weights/leak"] = h5py.ExternalLink("other.h5", "/secret")
        elif kind == "soft":
            file["model_weights/leak"] = h5py.SoftLink("/model_weights")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), float)
            layout[:] = h5py.VirtualSource("other.h5", "secret", (3,))
            file.create_virtual_dataset("model_weights/leak", layout)
        else:
            file.create_dataset("model_weights/leak", (3,), float, external=[("other.h5", 0, 24)])
    with pytest.raises(ModelError, match="must hold all its data itself"):
        keras_source.full_model(Path("small.h5"))


def dense_bias_from_elsewhere(path, kind):
    Path("raw").write_bytes(np.full(4, 42, np.float32).tobytes())
    with h5py.File("other.h5", "w") as other:
        other["secret"] = np.full(4, 42, np.float32)
    with h5py.File(path, "a") as file:
        weights = file["layers/dense/vars"]
        del weights["1"]
        if kind == "external":
            weights["1"] = h5py.ExternalLink("other.h5", "/secret")
        else:
            weights.create_dataset("1", (4,), np.float32, external=[("raw", 0, 16)])


@pytest.mark.parametrize("kind", ["external", "stored elsewhere"])
def test_data_from_elsewhere_inside_a_keras_file_is_refused(network, kind):
    network.save("good.keras")
    with zipfile.ZipFile("good.keras") as good, zipfile.ZipFile("bad.keras", "w") as bad:
        Path("w.h5").write_bytes(good.read("model.weights.h5"))
        dense_bias_from_elsewhere("w.h5", kind)
        bad.writestr("config.json", good.read("config.json"))
        bad.writestr("model.weights.h5", Path("w.h5").read_bytes())
    with pytest.raises(ModelError, match="must hold all its data itself"):
        keras_source.full_model(Path("bad.keras"))


@pytest.mark.parametrize("kind", ["external", "stored elsewhere"])
def test_data_from_elsewhere_in_weights_alone_are_refused(network, kind):
    network.save_weights("bad.weights.h5")
    dense_bias_from_elsewhere("bad.weights.h5", kind)
    with pytest.raises(ModelError, match=r"bad\.weights\.h5"):
        keras_source.from_layers(json.loads(network.to_json()), "l.json", Path("bad.weights.h5"), seed=0)


@pytest.mark.parametrize("name", ["small.h5", "small.keras"])
@pytest.mark.parametrize("keep", [0, 10, 2000, -100])
def test_truncated_files_are_refused(network, name, keep):
    network.save(name)
    Path(name).write_bytes(Path(name).read_bytes()[:keep])
    with pytest.raises(ModelError, match=name):
        keras_source.full_model(Path(name))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": ', "\ud800".encode(errors="surrogatepass")])
def test_a_json_that_is_no_model_is_refused(text):
    Path("layers.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=r"layers\.json"):
        keras_source.read_layers(Path("layers.json"))


def test_weights_alone_are_no_full_model(network):
    network.save_weights("only.weights.h5")
    with pytest.raises(ModelError, match="weights only"):
        keras_source.full_model(Path("only.weights.h5"))
