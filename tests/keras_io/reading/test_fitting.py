"""Weights by layer name, or by order, into a network that the file was not made for."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import graph_of, read, read_into
from tests.conftest import REAL_DATA, needs_real_data
from tests.graphs import answer
from tests.keras_io.reading import written
from tests.networks import keras_2_json, keras_answers, keras_warns, small_network

pytestmark = keras_warns

PIXELS = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)


def content(network):
    return json.loads(network.to_json())


def answered(file):
    return answer(graph_of(file).model, PIXELS.transpose(0, 3, 1, 2))


def assert_same_answers(file, network):
    np.testing.assert_allclose(answered(file), keras_answers(network, PIXELS), rtol=1e-4, atol=1e-5)


def save_weights_alone(network, path, prefix=""):
    """The old format of weights alone: one group per layer."""
    with h5py.File(path, "w") as file:
        weighted = [layer for layer in network.layers if layer.weights]
        file.attrs["layer_names"] = [prefix + layer.name for layer in weighted]
        for layer in weighted:
            group = file.create_group(prefix + layer.name)
            group.attrs["weight_names"] = [f"{prefix}{layer.name}/{i}" for i in range(len(layer.weights))]
            for index, value in enumerate(layer.get_weights()):
                group[f"{prefix}{layer.name}/{index}"] = value


FILES = ["weights.h5", "small.h5", "small.keras", "small.weights.h5"]


def save(network, name):
    if name == "weights.h5":
        save_weights_alone(network, name)
    elif name == "small.weights.h5":
        network.save_weights(name)
    else:
        network.save(name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("generation", [2, 3])
def test_where_all_fits_nothing_is_fresh(network, name, generation):
    save(network, name)
    described = content(network) if generation == 3 else keras_2_json(network)
    file = read_into(described, Path(name), 1, "layers.json")
    assert_same_answers(file, network)
    assert (file.notes, file.source["file"], file.where) == ([], name, "layers.json")
    assert [layer.name for layer in file.layers if layer.trainable] == ["dense"]


@pytest.mark.parametrize("name", FILES)
def test_fresh_heads_are_noted_and_the_rest_is_the_files(keras, network, name):
    save(network, name)
    wider = small_network(keras, units=9)
    file = read_into(content(wider), Path(name), 3, "l.json")
    assert file.notes == ["dense (it has 8x4 4, the network 8x9 9): starts from fresh weights"]
    for layer in network.layers:
        if layer.weights and layer.name != "dense":
            for ours, theirs in zip(file.weights[layer.name].values(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    kernel, bias = file.weights["dense"].values()
    assert kernel.shape == (8, 9)
    assert 0.1 < kernel.std() < np.sqrt(6 / 17)
    assert not bias.any()
    again, other = (read_into(content(wider), Path(name), seed, "l.json") for seed in (3, 4))
    np.testing.assert_array_equal(again.weights["dense"]["kernel"], kernel)
    assert np.abs(other.weights["dense"]["kernel"] - kernel).max() > 0.01


@pytest.mark.parametrize("name", FILES)
def test_frozen_layers_must_get_weights(keras, network, name):
    save(network, name)
    described = content(small_network(keras, units=9))
    for layer in described["config"]["layers"]:
        layer["config"]["trainable"] = False
    with pytest.raises(ModelError, match="frozen layers get no weights: dense"):
        read_into(described, Path(name), 0, "l.json")


@pytest.mark.parametrize("name", ["weights.h5", "small.h5", "small.keras"])
def test_a_file_in_which_nothing_fits(keras, network, name):
    save(network, name)
    inputs = keras.Input((24, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    other = keras.Model(inputs, keras.layers.Dense(4, name="scores")(x))
    with pytest.raises(ModelError, match=f"{name}: none of its weights fits this network by name and shape"):
        read_into(content(other), Path(name), 0, "l.json")


def test_layers_that_the_network_has_not_are_noted(keras, network):
    network.save("small.h5")
    pooled = keras.layers.GlobalAveragePooling2D()(network.get_layer("stem_relu").output)
    part = keras.Model(network.input, keras.layers.Dense(2, name="two")(pooled))
    file = read_into(content(part), Path("small.h5"), 0, "l.json")
    assert file.notes == [
        "two (not in the file): starts from fresh weights",
        "small.h5: the network has no place for block_conv, block_bn, dense",
    ]


@pytest.mark.parametrize("name", ["weights.h5", "small.h5"])
def test_renamed_layers_get_their_weights_by_order(keras, network, name):
    if name == "weights.h5":
        save_weights_alone(network, name, "renamed_")
    else:
        network.save(name)
    described = json.loads(json.dumps(content(network)).replace("block_conv", "another").replace("stem_", ""))
    file = read_into(described, Path(name), 0, "l.json")
    assert_same_answers(file, network)
    assert file.notes == []


def test_a_backbone_of_another_session_gets_its_weights_by_order(keras):
    """Keras numbers names of its own making on and on, so that `conv2d_1` may be another's `conv2d`."""

    def backbone(first):
        layers = [keras.Input((24, 24, 3))]
        for at in range(4):
            number = first + at
            layers.append(keras.layers.Conv2D(3, 3, name=f"conv2d_{number}" if number else "conv2d"))
        return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D()])

    old, new = backbone(1), backbone(0)
    old.save_weights("old.weights.h5")
    save_weights_alone(old, "old.h5")
    inputs = keras.Input((24, 24, 3))
    x = inputs
    for layer in new.layers:
        layer.trainable = False
        x = layer(x)
    whole = keras.Model(inputs, keras.layers.Dense(2, name="dense")(x))
    for name in ("old.weights.h5", "old.h5"):
        file = read_into(content(whole), Path(name), 0, "l.json")
        assert file.notes == ["dense (not in the file): starts from fresh weights"]
        for ours, theirs in zip(new.layers[:4], old.layers[:4], strict=True):
            np.testing.assert_array_equal(file.weights[ours.name]["kernel"], theirs.get_weights()[0])


def test_order_does_not_override_names(keras):
    """`b` of the file is `b` of the network, though it stands where the network has `c`."""

    def chain(*names):
        layers = [keras.layers.Dense(3, name=name) for name in names]
        return keras.Sequential([keras.Input((24, 24, 3)), keras.layers.GlobalAveragePooling2D(), *layers])

    old = chain("a", "b", "c")
    save_weights_alone(old, "old.h5")
    file = read_into(content(chain("a", "new", "b")), Path("old.h5"), 0, "l.json")
    assert file.notes == [
        "new (not in the file): starts from fresh weights",
        "old.h5: the network has no place for c",
    ]
    np.testing.assert_array_equal(file.weights["b"]["kernel"], old.get_layer("b").get_weights()[0])


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_nested_backbone_fits_a_flat_network_and_the_other_way_round(keras, network, suffix):
    inner = keras.Model(network.input, network.get_layer("average").output, name="backbone")
    inputs = keras.Input((24, 24, 3))
    head = keras.layers.Dense(4, activation="softmax", name="dense")
    nested = keras.Model(inputs, head(inner(inputs)))
    head.set_weights(network.get_layer("dense").get_weights())
    nested.save(f"nested.{suffix}")
    network.save(f"flat.{suffix}")
    for described, name in ((network, "nested"), (nested, "flat")):
        file = read_into(content(described), Path(f"{name}.{suffix}"), 0, "l.json")
        assert_same_answers(file, network)
        assert file.notes == []


def test_nested_weights_as_keras_2_named_them(keras):
    """One group for the nested model, `:0` after each name, and all that is trained first."""
    layers = [
        keras.Input((24, 24, 3)),
        keras.layers.Conv2D(4, 3, name="a"),
        keras.layers.BatchNormalization(name="n"),
    ]
    inner = keras.Sequential([*layers, keras.layers.Conv2D(3, 3, name="b")], name="now")
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, name="dense")]
    model = keras.Sequential([keras.Input((24, 24, 3)), inner, *head])
    generator = np.random.default_rng(1)
    values = {
        weight.path.replace("now/", ""): generator.random(weight.shape).astype(np.float32)
        for weight in (*inner.trainable_weights, *inner.non_trainable_weights)
    }
    with h5py.File("two.h5", "w") as file:
        file.attrs["layer_names"] = ["then"]
        file.create_group("then").attrs["weight_names"] = [f"{name}:0" for name in values]
        for name, value in values.items():
            file["then"][f"{name}:0"] = value
    file = read_into(content(model), Path("two.h5"), 0, "l.json")
    assert file.notes == ["dense (not in the file): starts from fresh weights"]
    for name, value in values.items():
        layer, _, role = name.partition("/")
        np.testing.assert_array_equal(file.weights[layer][role], value)


def test_two_layers_of_one_name_are_no_names(keras, network):
    network.save("small.h5")
    part = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.Conv2D(3, 3, name="same")], name="one")
    other = keras.Sequential([keras.Input((22, 22, 3)), keras.layers.Conv2D(3, 3, name="same")], name="two")
    tail = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, name="dense")]
    twice = keras.Sequential([keras.Input((24, 24, 3)), part, other, *tail])
    with pytest.raises(ModelError, match="by layer name, and the network has two layers called 'same'"):
        read_into(content(twice), Path("small.h5"), 0, "l.json")
    twice.save("twice.h5")
    file = read_into(content(twice), Path("twice.h5"), 0, "l.json")
    assert_same_answers(file, twice)


def test_without_a_file_all_is_fresh(network):
    file = read_into(content(network), None, 7, "layers.json")
    assert (file.notes, file.source) == ([], {"file": "layers.json"})
    assert file.parameters.total == network.count_params()
    for layer in network.layers:
        for value, wanted in zip(file.weights.get(layer.name, {}).values(), layer.weights, strict=True):
            assert (value.shape, value.dtype) == (tuple(wanted.shape), np.float32)
    assert set(file.weights["stem_bn"]) == {"gamma", "beta", "moving_mean", "moving_variance"}
    assert file.weights["stem_bn"]["moving_variance"].min() == 1
    assert np.isfinite(answered(file)).all()
    named = read_into(content(network), None, 7, "layers.json", {"file": "mine"})
    assert named.source == {"file": "mine"}


@pytest.mark.parametrize(("keras_", "name"), written.names())
def test_every_layer_class_knows_its_shapes_and_starts_fresh(keras_, name, tmp_path):
    """The shapes are those of the file that Keras wrote."""
    path = written.file(keras_, name, tmp_path)
    described = written.config_of(path)
    file = read_into(described, None, 0, name)
    theirs = read(path)
    shapes = {
        path: {role: value.shape for role, value in held.items()} for path, held in file.weights.items()
    }
    wanted = {
        path: {role: np.shape(value) for role, value in held.items()} for path, held in theirs.weights.items()
    }
    assert shapes == wanted
    graph_of(file)


@pytest.mark.parametrize(
    "damage", ["truncated", "no array", "text", "missing"], ids=lambda name: name.replace(" ", "_")
)
def test_damaged_files(network, damage):
    save_weights_alone(network, "w.h5")
    if damage == "truncated":
        Path("w.h5").write_bytes(Path("w.h5").read_bytes()[:3000])
    else:
        with h5py.File("w.h5", "a") as file:
            del file["dense/dense/0"]
            if damage == "no array":
                file.create_group("dense/dense/0")
            elif damage == "text":
                file["dense/dense/0"] = "weights"
    with pytest.raises(ModelError, match=r"w\.h5"):
        read_into(content(network), Path("w.h5"), 0, "l.json")


@needs_real_data
def test_imagenet_weights_of_keras_2():
    described = json.loads((REAL_DATA / "layers_resnet50_keras2.json").read_text())
    path = REAL_DATA / "resnet50_imagenet_notop.h5"
    file = read_into(described, path, 0, "layers.json")
    assert file.notes == ["dense (not in the file): starts from fresh weights"]
    with h5py.File(path) as opened:
        root = opened.get("model_weights", opened)
        assert len(file.weights) == 1 + sum(len(group.attrs["weight_names"]) > 0 for group in root.values())
        conv = root["conv1_conv"]
        kernel = conv[conv.attrs["weight_names"][0]][()]
    np.testing.assert_array_equal(file.weights["conv1_conv"]["kernel"], kernel)
