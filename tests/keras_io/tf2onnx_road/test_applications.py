"""The networks of keras.applications: each converts with parity that means something, at any size."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import networks
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import architectures, parity
from birdsonnx.keras_io.tf2onnx_road import applications, keras_source
from birdsonnx.keras_io.tf2onnx_road.conversion import convert
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork
from birdsonnx.passes.uint8_input import with_preprocessing
from tests.networks import keras_warns

pytestmark = keras_warns

SMALL = {
    "ResNet50": {"size": (32, 48)},
    "MobileNetV2": {"size": (48, 32)},
    "DenseNet121": {"size": (32, 32)},
    "VGG16": {"size": (32, 32)},
}
"""Of these, every run of the tests sees the quickest; the rest is slow."""


@pytest.mark.parametrize(
    "name", [name if name == "VGG16" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_the_shapes_of_the_best_known_networks(keras, name):
    network = networks.realistic_application(name, **SMALL[name])
    row = networks.Row(name)
    converted = networks.fill_parity(row, network, networks.fill_preprocessing(row, network))
    assert converted is not None, row.problem
    assert row.preprocessing == networks.mode_of(name)
    assert max(row.parity.values()) < 1e-4
    assert row.spread >= 2.99
    assert converted.model.input_size == (*SMALL[name]["size"], 3)
    swapped(converted, network)


def swapped(converted, network):
    """Red and blue in each other's place fail the check."""
    mine = converted.model.metadata.preprocessing
    other = type(mine)(mine.name, not mine.bgr, mine.scale[::-1], mine.offset[::-1])
    wrong = with_preprocessing(converted.model, other).serialized()
    with pytest.raises(ModelError, match="parity check failed"):
        parity.check(wrong, network.model, mine, "swapped")


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.DEFAULT)
def test_every_network(name):
    row = networks.in_a_process(name)
    assert row.problem is None
    assert row.preprocessing == networks.mode_of(name)
    assert max(row.parity.values()) < 2e-4
    assert row.spread >= 2.99
    assert row.swapped > 0.1
    for losses in (row.head, row.all_layers):
        assert losses[1] < losses[0]
    assert abs(row.derivative - 1) < 0.02


def test_statistics_and_head_are_those_of_pictures(keras):
    """What `realistic` promises, on a network with a Dropout that must stay out of it."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24, 24, 3))
    x = layers.Dropout(0.9)(layers.Conv2D(4, 3)(layers.Conv2D(4, 3, activation="relu")(inputs)))
    normal = layers.BatchNormalization(trainable=False)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(normal(x))))
    networks.realistic(model, lambda pixels: pixels / 255)
    pixels = parity.natural_images(networks.CALIBRATION, 24, 24, 3, seed=1000).astype(np.float32) / 255
    before = keras.Model(inputs, x).predict_on_batch(pixels).reshape(-1, 4)
    np.testing.assert_allclose(before.mean(axis=0), normal.moving_mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(before.var(axis=0), normal.moving_variance, rtol=1e-3, atol=1e-6)
    assert normal.momentum == 0.99
    assert not normal.trainable
    for batch in parity.BATCHES:
        pictures = parity.natural_images(batch, 24, 24, 3, seed=batch).astype(np.float32) / 255
        assert np.ptp(model.predict_on_batch(pictures), axis=1).min() > 0.999 * networks.SPREAD


def test_a_table():
    numbers = (3.0, 2.5, {1: 1e-6, 7: 2e-6}, (1.5, 0.25), (2.0, 1.0), 0.9994, 123.4)
    rows = [networks.Row("A", "8 x 8 x 3", 1_500_000, "tf", *numbers)]
    rows.append(networks.Row("B", problem="exit 1: no"))
    lines = networks.markdown(rows).splitlines()
    assert lines[0].startswith("| network | input | parameters | preprocessing |")
    use = "1.50 -> 0.25 | 2.00 -> 1.00 | 0.999 | 123 |"
    assert lines[2] == f"| A | 8 x 8 x 3 | 1.5 M | tf | 3.0 | 2.50 | 2.0e-06 | {use}"
    assert "| exit 1: no |" in lines[3]


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("mobilenetv2", None, 3),
        ("VGG16", (40, 32), 1),
        pytest.param("efficientnetb1", (32, 64), 3, marks=pytest.mark.slow),
        ("mobilenet", (70, 70), 3),
    ],
)
def test_build(keras, name, size, channels):
    network = applications.build(name, 6, "none", 5, size, channels)
    model = network.model
    side = architectures.DEFAULT_SIZES[architectures.named(name)]
    assert model.inputs[0].shape == (None, *(size or (side, side)), channels)
    assert model.layers[-1].name == "dense"
    assert [layer.name for layer in network.layers if layer.trainable] == ["dense"]
    again = applications.build(name, 6, "none", 5, size, channels).model
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ResNet51", {}, "--arch ResNet51: there is no such network .* file; did you mean 'ResNet50'"),
        ("Xception", {"size": (60, 60)}, "--arch Xception: Keras does not build .* at least 71x71"),
        ("ResNet50", {"channels": 1, "weights": "imagenet"}, "must have 3 channels"),
    ],
)
def test_what_keras_does_not_build(keras, name, options, message):
    with pytest.raises(ConfigError, match=message):
        applications.build(name, **{"classes": 3, "weights": "none", **options})


def test_weights_from_a_file(keras):
    source = applications.build("MobileNetV2", 3, "none", 1, (32, 32))
    source.model.save("three.h5")
    read = applications.build("mobilenetv2", 3, "three.h5", 2, (64, 32))
    assert read.notes == []
    for one, other in zip(source.model.get_weights(), read.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    wider = applications.build("mobilenetv2", 4, "three.h5", 2, (32, 32))
    assert wider.notes == ["dense (it has 1280x3 3, the network 1280x4 4): starts from fresh weights"]
    with pytest.raises(ModelError, match="frozen layers get no weights: Conv1"):
        applications.build("mobilenetv2", 3, "three.h5", 2, (32, 32), channels=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.DEFAULT_SIZES)
def test_the_size_is_keras_own(keras, name):
    model = getattr(keras.applications, name)(weights=None, include_top=True, classes=2)
    side = architectures.DEFAULT_SIZES[name]
    assert model.input_shape == (None, side, side, 3)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("VGG16", marks=pytest.mark.slow),
        "MobileNet",
        pytest.param("MobileNetV3Small", marks=pytest.mark.slow),
    ],
)
def test_with_the_top_of_keras(keras, name):
    """Flatten and two hidden Dense layers; scores from a convolution, with Reshape or Flatten."""
    options = {"alpha": 0.25} if name == "MobileNet" else {}
    size = 32 if name == "VGG16" else 64
    model = getattr(keras.applications, name)(
        weights=None, include_top=True, classes=4, input_shape=(size, size, 3), **options
    )
    found = convert(KerasNetwork(model, {}), name)
    assert found.model.num_classes == 4
    assert found.model.metadata.preprocessing.name == networks.mode_of(name)


def scaled(keras, name):
    """A small network with the layer of keras.applications that the one called so has."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    if name == "ConvNeXtTiny":
        from keras.src.applications.convnext import LayerScale

        x = LayerScale(0.5, 4, name="scale")(x)
    else:
        from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

        x = CustomScaleLayer(0.25, name="scale")([x, keras.layers.Conv2D(4, 1)(inputs)])
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "InceptionResNetV2"])
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_layers_that_only_keras_applications_has_come_back_from_a_file(keras, name, whole):
    """LayerScale and CustomScaleLayer."""
    options = {"weights": None, "classes": 3, "input_shape": (75, 75, 3)}
    model = getattr(keras.applications, name)(**options) if whole else scaled(keras, name)
    model.save("own.keras")
    read = keras_source.full_model(Path("own.keras")).model
    for one, other in zip(model.get_weights(), read.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [type(layer) for layer in read.layers] == [type(layer) for layer in model.layers]
