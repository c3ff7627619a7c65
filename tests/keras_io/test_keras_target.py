"""Weights put back into Keras networks, compared with the network they came from."""

import numpy as np
import pytest
from onnx import numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.keras_io import keras_target
from birdsonnx.keras_io.tf2onnx_road.conversion import convert
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork
from birdsonnx.model.edits import set_constant
from birdsonnx.model.weights import with_weights
from tests.graphs import answer
from tests.networks import keras_warns, small_network

pytestmark = keras_warns


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
    found, expected = other.predict(photos, verbose=0), one.predict(photos, verbose=0)
    assert np.ptp(expected, axis=1).min() > 1e-2, "classes that differ"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_every_kind_of_layer_comes_back(keras):
    model = with_random_weights(varied_network(keras), 1)
    converted = convert(KerasNetwork(model, {}), "varied", "none").model
    returned = with_random_weights(varied_network(keras), 2)
    keras_target.put_weights(KerasNetwork(returned, {}), converted)
    same_answers(model, returned, 16)


def test_a_layer_without_a_batch_norm_gets_its_very_values(keras):
    model = with_random_weights(varied_network(keras), 1)
    converted = convert(KerasNetwork(model, {}), "varied", "none").model
    returned = varied_network(keras)
    keras_target.put_weights(KerasNetwork(returned, {}), converted)
    for name in ("separable", "on_map", "plain", "hidden", "dense"):
        expected = model.get_layer(name).get_weights()
        for found, value in zip(returned.get_layer(name).get_weights(), expected, strict=True):
            np.testing.assert_array_equal(found, value, err_msg=name)


def test_trained_weights_come_back(keras):
    converted = convert(KerasNetwork(small_network(keras), {}), "small", "none").model
    generator = np.random.default_rng(4)
    trained = with_weights(
        converted,
        {
            tensor.name: numpy_helper.to_array(tensor) * generator.uniform(0.9, 1.1, tensor.dims).astype("f")
            for tensor in converted.proto.graph.initializer
            if tensor.name.endswith(("/kernel", "/bias"))
        },
    )
    returned = small_network(keras)
    keras_target.put_weights(KerasNetwork(returned, {}), trained)
    photos = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
    expected = answer(trained.proto, photos)
    assert np.abs(expected - answer(converted.proto, photos)).max() > 1e-2
    found = np.log(returned.predict(photos.astype(np.float32), verbose=0))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_a_weight_that_has_no_place_is_refused(keras):
    converted = convert(KerasNetwork(small_network(keras), {}), "small", "none").model
    with pytest.raises(ModelError, match=r"^small: its weight 'dense/kernel' has no place"):
        keras_target.put_weights(KerasNetwork(small_network(keras, units=5), {}), converted)
    set_constant(converted.proto.graph, "other/kernel", np.ones((3, 3), np.float32))
    with pytest.raises(ModelError, match=r"^small: its weight 'other/kernel' has no place"):
        keras_target.put_weights(KerasNetwork(small_network(keras), {}), converted)
