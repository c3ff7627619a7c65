"""An array of layers as a Keras model."""

import json
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.keras_io import layer_list
from birdsonnx.keras_io.tf2onnx_road import keras_source
from tests.digits import lenet
from tests.networks import keras_answers, keras_warns

SHAPE = [None, 28, 28, 1]


def layer(kind, **config):
    return {"class_name": kind, "config": config}


CONV = layer("Conv2D", filters=4, kernel_size=[3, 3])
FIRST = layer("Conv2D", filters=4, kernel_size=[3, 3], batch_input_shape=SHAPE)
FLATTEN = layer("Flatten")
DENSE = layer("Dense", units=2)


def names(*layers):
    content = layer_list.as_sequential(layers, "layers")
    return [each["config"]["name"] for each in content["config"]["layers"]]


@keras_warns
@pytest.mark.parametrize(
    "kind",
    [
        *("Conv2D", "MaxPooling2D", "ReLU", "PReLU", "Conv2DTranspose", "BatchNormalization", "Dense", "ELU"),
        *("GlobalAveragePooling2D", "Flatten", "SpatialDropout2D", "LeakyReLU", "DepthwiseConv2D"),
    ],
)
def test_a_layer_without_a_name_is_called_as_keras_calls_it(keras, kind):
    from keras.src.utils.naming import to_snake_case

    assert layer_list.snake_case(kind) == to_snake_case(kind)


def test_names_are_counted_and_given_ones_are_left():
    given = {**CONV, "config": {**CONV["config"], "name": "conv2d_1"}}
    assert names(FIRST, CONV, given, CONV, FLATTEN, {"class_name": "Dense", "name": "head"}) == [
        *("input_layer", "conv2d", "conv2d_2", "conv2d_1", "conv2d_3", "flatten", "head")
    ]


@keras_warns
def test_the_network_is_the_one_that_keras_builds_of_the_same_layers(keras):
    read = keras_source.from_layers(lenet(), "layers", None, seed=3)
    keras.utils.set_random_seed(3)
    layers = keras.layers
    expected = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(2, activation="log_softmax"),
        ]
    )
    photos = np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)
    found, wanted = (keras_answers(model, photos) for model in (read.model, expected))
    np.testing.assert_array_equal(found, wanted)
    again = keras_source.from_layers(lenet(), "layers", None, seed=3)
    np.testing.assert_array_equal(keras_answers(again.model, photos), found)
    other = keras_source.from_layers(lenet(), "layers", None, seed=4)
    assert not np.allclose(keras_answers(other.model, photos), found)


INPUTS = {
    "of the first layer": [FIRST],
    "as Keras 3 says it": [layer("Conv2D", filters=4, kernel_size=[3, 3], batch_shape=SHAPE)],
    "without the batch": [layer("Conv2D", filters=4, kernel_size=[3, 3], input_shape=[28, 28, 1])],
    "with a batch": [layer("Conv2D", filters=4, kernel_size=[3, 3], batch_input_shape=[64, 28, 28, 1])],
    "of an InputLayer": [layer("InputLayer", batch_input_shape=SHAPE, sparse=False, ragged=False), CONV],
    "of an InputLayer of Keras 3": [layer("InputLayer", batch_shape=SHAPE, name="photo"), CONV],
    "of a short InputLayer": [layer("InputLayer", shape=[28, 28, 1]), CONV],
    "of both": [layer("InputLayer", batch_input_shape=SHAPE), FIRST],
}


@keras_warns
@pytest.mark.parametrize("case", INPUTS)
def test_the_shape_is_found(case):
    layers = [*INPUTS[case], FLATTEN, DENSE]
    assert keras_source.input_size_in(layers, "layers") == (28, 28, 1)
    read = keras_source.from_layers(layers, "layers", None, seed=0)
    assert tuple(read.model.inputs[0].shape) == (None, 28, 28, 1)


@keras_warns
def test_layers_as_keras_2_and_3_write_them(keras):
    """Each layer of a chain as `to_json` has it, whatever else stands there."""
    network = keras_source.from_layers(lenet(), "layers", None, seed=0).model
    entries = json.loads(network.to_json())["config"]["layers"]
    entries[1]["inbound_nodes"] = [[["input_layer", 0, 0, {}]]]  # Keras 2
    entries[2]["inbound_nodes"] = [  # Keras 3
        {
            "args": [
                {
                    "class_name": "__keras_tensor__",
                    "config": {"keras_history": [entries[1]["config"]["name"], 0, 0]},
                }
            ],
            "kwargs": {},
        }
    ]
    again = keras_source.from_layers(entries, "layers", None, seed=0)
    assert [layer.name for layer in again.all_layers] == [each["config"]["name"] for each in entries[1:]]
    photos = np.ones((1, 28, 28, 1), np.float32)
    np.testing.assert_array_equal(keras_answers(again.model, photos), keras_answers(network, photos))


def test_an_array_of_a_file():
    Path("layers.json").write_text(json.dumps(lenet()))
    assert keras_source.read_layers(Path("layers.json")) == lenet()
    found = keras_source.layers_in(keras_source.read_layers(Path("layers.json")), "layers.json")
    assert [(name, units) for name, _, units in found if units] == [
        *(("conv2d", 8), ("conv2d_1", 16), ("dense", 32), ("dense_1", 2))
    ]


TWO_SOURCES = {**layer("Add", name="sum"), "inbound_nodes": [[["a", 0, 0, {}], ["b", 0, 0, {}]]]}
BROKEN = {
    "nothing": ([], r": the array holds no layer$"),
    "a text": ([FIRST, "Dense"], r'\[1\]: a layer is an object .*, got "Dense"$'),
    "no class": ([FIRST, {"config": {}}], r"\[1\]: a layer is an object"),
    "no config": ([{"class_name": "Dense", "config": 3}], r"\[0\]: the config of Dense .*got 3$"),
    "a name of 3": ([layer("Dense", name=3)], r"\[0\]: the name of Dense must be a text, got 3$"),
    "no shape": ([CONV, DENSE], r": its first layer does not say .* such as \[null, 28, 28, 1\]"),
    "a late shape": ([CONV, FIRST], r": its first layer does not say the shape"),
    "two shapes": (
        [FIRST, layer("Dense", units=2, input_shape=[28, 28, 3])],
        r": its layers give two shapes .*, \[null, 28, 28, 1\] in \[0\] and \[null, 28, 28, 3\] in \[1\]$",
    ),
    "flat": ([layer("Dense", batch_input_shape=[None, 784])], r"\[0\]: batch_input_shape must be batch, hei"),
    "words": ([layer("Dense", input_shape=["a", 1, 1])], r"\[0\]: input_shape must be height"),
    "a size of 0": ([layer("Dense", input_shape=[0, 1, 1])], r"\[0\]: input_shape must be height"),
    "two inputs": ([FIRST, layer("InputLayer", shape=[1, 1, 1])], r"\[1\]: an InputLayer can only be"),
    "one name twice": (
        [FIRST, layer("Dense", name="a"), layer("Dense", name="a")],
        r"\[2\]: a second layer 'a'; names must differ$",
    ),
    "two sources": (
        [FIRST, TWO_SOURCES],
        r"\[1\]: layer 'sum' reads 'a' and 'b', but in an array each layer",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_array_that_is_no_chain_is_refused(case):
    layers, message = BROKEN[case]
    with pytest.raises(ModelError, match=f"^layers{message}") as refusal:
        layer_list.as_sequential(layers, "layers")
    assert "\n" not in str(refusal.value)


UNFIT = {
    "an unknown class": (
        [FIRST, layer("Cnov2D")],
        r"^layers\[1\]: .*, which is not Keras' own; did you mean",
    ),
    "an unknown option": ([FIRST, layer("Dense", unitz=2), DENSE], r"^layers\[1\]: Keras cannot build"),
    "what does not fit": ([FIRST, FLATTEN, CONV, DENSE], r"^layers\[2\]: Keras cannot build this network"),
    "the last": ([FIRST, FLATTEN, layer("Dense")], r"^layers\[2\]: Keras cannot build this network"),
    "code": ([FIRST, layer("Lambda", function="x")], r"^layers\[1\]: .* is a Lambda, which runs code"),
}


@keras_warns
@pytest.mark.parametrize("case", UNFIT)
def test_a_layer_that_keras_does_not_take_is_named(keras, case):
    layers, message = UNFIT[case]
    with pytest.raises(ModelError, match=message) as refusal:
        keras_source.from_layers(layers, "layers", None, seed=0)
    assert "\n" not in str(refusal.value)
