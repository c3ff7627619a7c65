"""Weights put back into Keras networks, compared with the network they came from."""

import json

import h5py
import numpy as np
import pytest
from onnx import numpy_helper

from birdsonnx.errors import ArtifactError, ModelError
from birdsonnx.keras_io import h5_file, oracle, way_back
from birdsonnx.keras_io.reading import graph_of, read
from birdsonnx.model.edits import set_constant
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.model.weights import with_weights
from tests.converted import bird_model, of_file
from tests.graphs import answer
from tests.keras_io.reading import written
from tests.networks import keras_2_json, keras_answers, keras_warns, small_network

pytestmark = keras_warns


# --- Without Keras: every layer of every file -----------------------------------------------------------


def graph_alone(file, name):
    """Whatever a network ends in, a model that holds its graph."""
    metadata = Metadata(of_mode("none", 3), file.layers, (), file.parameters)
    return BirdModel(graph_of(file).model, metadata, name)


@pytest.mark.parametrize(("keras_version", "name"), written.names(), ids=str)
def test_every_layer_comes_back(keras_version, name, tmp_path):
    """And our own `.h5` of it has the same answers and counts."""
    file = read(written.file(keras_version, name, tmp_path))
    model = graph_alone(file, name)
    back = way_back.returned(model, file.content, "network.json")
    folded = {layer.name for layer in file.layers if "Norm" in layer.kind or "Conv" in layer.kind}
    for path, held in file.weights.items():
        assert list(back.weights[path]) == list(held)
        for role, value in held.items():
            assert back.weights[path][role].shape == value.shape
            if path not in folded:
                np.testing.assert_array_equal(back.weights[path][role], value, err_msg=f"{path}/{role}")
    way_back.save(back, tmp_path / "back.h5")
    again = read(tmp_path / "back.h5")
    assert (again.layers, again.parameters) == (file.layers, file.parameters)
    photos = written.array(keras_version, written.PHOTOS).transpose(0, 3, 1, 2)
    expected = answer(model.proto, photos)
    found = answer(graph_of(again).model, photos)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


def test_a_norm_without_gamma_takes_a_trained_factor_as_its_variance(tmp_path):
    file = read(written.file(2, "batch_norm.h5", tmp_path))
    model = graph_alone(file, "net")
    [(path, layer)] = [
        (path, layer)
        for path, layer, _ in file.leaves
        if layer.kind == "BatchNormalization" and f"{path}/scale" in names_of(model)
    ][:1]
    content = json.loads(json.dumps(file.content))
    entry = next(each for each in written.layers_in(content) if each["config"]["name"] == path)
    entry["config"] |= {"scale": False, "center": False}
    size = file.weights[path]["gamma"].size
    factor = np.linspace(0.5, 2, size).astype(np.float32)
    shape = next(tensor.dims for tensor in model.proto.graph.initializer if tensor.name == f"{path}/scale")
    trained = with_weights(model, {f"{path}/scale": factor.reshape(shape)})
    back = way_back.returned(trained, content, "network.json")
    photos = written.array(2, written.PHOTOS).transpose(0, 3, 1, 2)
    expected = answer(trained.proto, photos)
    np.testing.assert_allclose(answer(graph_of(back).model, photos), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match=rf"^net: layer '{path}' has no gamma in network.json, and no var"):
        way_back.returned(
            with_weights(model, {f"{path}/scale": -factor.reshape(shape)}), content, "network.json"
        )
    assert layer.config["scale"] is not False


def names_of(model):
    return {tensor.name for tensor in model.proto.graph.initializer}


def test_another_network_is_refused(tmp_path):
    file = read(written.file(2, "dense.h5", tmp_path))
    model = graph_alone(file, "net")
    dense = next(layer.name for layer in file.layers if layer.kind == "Dense")
    wider = json.loads(json.dumps(file.content))
    next(each for each in written.layers_in(wider) if each["config"]["name"] == dense)["config"]["units"] += 1
    with pytest.raises(
        ModelError, match=rf"^net: its weight '{dense}/kernel' has no place in this Keras net"
    ):
        way_back.returned(model, wider, "network.json")
    renamed = json.loads(json.dumps(file.content).replace(f'"{dense}"', '"other"'))
    with pytest.raises(
        ModelError, match=r"^net: it has no kernel for layer 'other' of network.json; give the"
    ):
        way_back.returned(model, renamed, "network.json")
    set_constant(model.proto.graph, f"{dense}/extra", np.ones(3, np.float32))
    model.proto.graph.node[0].input.append(f"{dense}/extra")
    with pytest.raises(ModelError, match=rf"^net: its weight '{dense}/extra' has no place"):
        way_back.returned(model, file.content, "network.json")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_file_that_cannot_be_written_leaves_the_old_one(suffix, tmp_path, monkeypatch, request):
    if suffix == ".keras":
        request.getfixturevalue("keras")
    file = read(written.file(3, "conv2d_batch_norm.keras", tmp_path))
    target = tmp_path / "out" / f"back{suffix}"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(ArtifactError, match=rf"^cannot write .*back\{suffix}: No space left on device"):
        way_back.save(file, target)
    assert [each.name for each in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"


def test_long_lists_of_names_are_divided(tmp_path):
    with h5py.File(tmp_path / "names.h5", "w") as opened:
        names = [f"layer_{number}/{'x' * 500}" for number in range(400)]
        h5_file._set_names(opened, "weight_names", names)
        assert "weight_names3" in opened.attrs
        assert [name.decode() for at in range(4) for name in opened.attrs[f"weight_names{at}"]] == names


# --- Against Keras' own predictions ---------------------------------------------------------------------


def varied_network(keras, units=3):
    """What the conversion moves about: a BatchNorm after a convolution with and without a bias, and after
    none; one without gamma; depthwise and separable convolutions; Normalization; Dense, also on a map."""
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    x = layers.Normalization(name="normalization")(x)
    x = layers.BatchNormalization(name="first_bn")(x)
    x = layers.Conv2D(8, 3, name="biased")(x)
    x = layers.BatchNormalization(epsilon=1e-2, name="biased_bn")(x)
    x = layers.Activation("swish", name="swish")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(scale=False, name="depthwise_bn")(x)
    x = layers.SeparableConv2D(6, 3, name="separable")(x)
    x = layers.Dense(6, activation="gelu", name="on_map")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(x)
    x = layers.Add(name="add")([x, layers.Conv2D(6, 1, activation="relu", name="plain")(x)])
    x = layers.BatchNormalization(name="last_bn")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(scale=False, epsilon=1e-2, name="plain_bn")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(5, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(units, use_bias=False, name="dense")(x))


def with_random_weights(model, seed):
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            value = generator.normal(0.2, 0.4, variable.shape)
            if "kernel" in variable.name:  # so that values neither fade nor grow
                value = generator.normal(0, 1, variable.shape) / np.sqrt(np.prod(variable.shape[:-1]))
            if "variance" in variable.name:
                value = np.abs(value) + 0.3
            if variable.dtype == "float32":
                variable.assign(value)
        if hasattr(layer, "finalize_state"):  # Normalization computes with copies of its variables
            layer.finalize_state()
    return model


def same_answers(one, other, size):
    photos = np.random.default_rng(0).integers(0, 256, (5, size, size, 3)).astype(np.float32)
    found, expected = keras_answers(other, photos), keras_answers(one, photos)
    assert np.ptp(expected, axis=1).min() > 1e-2, "classes that differ"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def saved(model, folder):
    model.save(folder / "network.keras")
    return folder / "network.keras"


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_keras_answers_as_before(keras, suffix, tmp_path):
    model = with_random_weights(varied_network(keras), 1)
    file = read(saved(model, tmp_path))
    back = way_back.returned(of_file(file), file.content, "layers.json")
    way_back.save(back, tmp_path / f"back{suffix}")
    returned = keras.models.load_model(tmp_path / f"back{suffix}", compile=False)
    same_answers(model, returned, 16)
    for name in ("separable", "on_map", "plain", "hidden", "dense", "prelu"):
        expected = model.get_layer(name).get_weights()
        for found, value in zip(returned.get_layer(name).get_weights(), expected, strict=True):
            np.testing.assert_array_equal(found, value, err_msg=name)


@pytest.mark.parametrize("as_written", [lambda model: json.loads(model.to_json()), keras_2_json])
def test_trained_weights_come_back(keras, as_written, tmp_path):
    model = small_network(keras)
    converted = bird_model(saved(model, tmp_path))
    generator = np.random.default_rng(4)
    trained = with_weights(
        converted,
        {
            tensor.name: numpy_helper.to_array(tensor) * generator.uniform(0.9, 1.1, tensor.dims).astype("f")
            for tensor in converted.proto.graph.initializer
            if tensor.name.endswith(("/kernel", "/bias"))
        },
    )
    returned = oracle.model_like(way_back.returned(trained, as_written(model), "layers.json"))
    photos = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
    expected = answer(trained.proto, photos)
    assert np.abs(expected - answer(converted.proto, photos)).max() > 1e-2
    found = np.log(keras_answers(returned, photos))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
