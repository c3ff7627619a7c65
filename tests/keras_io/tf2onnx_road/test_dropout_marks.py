"""Keras' Dropout layers on the road by tf2onnx: what is dropped is recorded as on the main road."""

import contextlib

import numpy as np
import pytest

from birdsonnx.keras_io import conversion as main_road
from birdsonnx.keras_io.tf2onnx_road import conversion
from birdsonnx.keras_io.tf2onnx_road.dropout_marks import Marks
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork, training_notes
from tests.graphs import answer
from tests.networks import as_read, keras_warns

pytestmark = keras_warns

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)


@pytest.fixture(scope="module")
def several(keras):
    """One of each kind, in a nested model, twice on one tensor, and one that drops nothing."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inner = keras.Input((12, 12, 6))
    y = layers.SpatialDropout2D(0.2, name="maps")(inner)
    nested = keras.Model(inner, layers.Conv2D(5, 3, activation="relu", name="inside")(y), name="nested")
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", name="first")(inputs)
    x = layers.Dropout(0.1, noise_shape=(None, 1, 1, 1), name="photos")(nested(x))
    x = layers.Add()([layers.Dropout(0.5, name="left")(x), layers.Dropout(0.5, name="right")(x)])
    x = layers.MaxPooling2D(name="pool")(layers.Dropout(0, name="nothing")(x))
    x = layers.Dense(7, activation="relu", name="hidden")(layers.Flatten()(x))
    x = layers.Dense(3, activation="log_softmax", name="head")(layers.Dropout(0.4, name="last")(x))
    network = KerasNetwork(keras.Model(inputs, x), {"file": "test"})
    return conversion.convert(network, "test", "unit"), network


def test_the_records_are_those_of_the_main_road(several):
    found, network = several
    own = main_road.convert(as_read(network.model), "test", "unit").model
    assert len(found.model.metadata.dropout) == 5
    assert set(found.model.metadata.dropout) == set(own.metadata.dropout)
    np.testing.assert_allclose(
        answer(found.model.proto, PIXELS), answer(own.proto, PIXELS), rtol=0, atol=1e-5
    )


def test_the_keras_network_is_left_as_it_was(several):
    network = several[1]
    trained = network.model(PIXELS / np.float32(255), training=True)
    assert not np.allclose(trained, network.model(PIXELS / np.float32(255), training=False))
    assert not any("call" in vars(layer) for layer in network.all_layers)


def test_a_layer_that_cannot_be_converted_is_left_too(keras):
    layer = keras.layers.Dropout(0.5)
    marks = Marks([layer])
    with contextlib.suppress(ZeroDivisionError), marks.visible():
        assert "call" in vars(layer)
        raise ZeroDivisionError
    assert "call" not in vars(layer)


def test_every_layer_is_listed(several):
    assert {"maps", "nothing", "pool", "head"} <= {layer.name for layer in several[1].all_layers}
    assert training_notes(several[1]) == []
