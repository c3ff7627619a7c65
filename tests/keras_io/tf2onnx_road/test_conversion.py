"""Keras to `.onnx`, compared with Keras itself, and the parity check that guards it."""

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import parity
from birdsonnx.keras_io.tf2onnx_road import keras_source
from birdsonnx.keras_io.tf2onnx_road.conversion import convert
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork
from birdsonnx.model.preprocessing import Preprocessing, of_mode
from birdsonnx.passes import uint8_input
from tests.graphs import answer, operators
from tests.networks import keras_answers, keras_warns, small_network

pytestmark = keras_warns
CLASSES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def converted(network):
    return convert(KerasNetwork(network, {"file": "small"}), "small", "caffe", classes=CLASSES)


def pixels_of(batch):
    return np.random.default_rng(batch).integers(0, 256, (batch, 24, 24, 3), np.uint8)


def keras_answer(keras, model, activation, pixels, mode="caffe"):
    """Log-probabilities in float64, by Keras alone."""
    values = pixels.astype(np.float32)
    if mode != "none":
        values = keras.applications.imagenet_utils.preprocess_input(values, mode=mode)
    scores = keras_answers(model, values).astype(np.float64)
    scores = np.log(scores) if activation == "softmax" else scores
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", None])
def test_any_head_gives_the_log_probs_of_keras(keras, activation):
    model = small_network(keras, activation)
    proto = convert(KerasNetwork(model, {}), "small", "caffe").model.proto
    for batch in (1, 7):
        expected = keras_answer(keras, model, activation, pixels_of(batch))
        assert np.ptp(expected, axis=1).min() > 1, "classes that differ"
        np.testing.assert_allclose(answer(proto, pixels_of(batch)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["torch", "tf", "none"])
def test_any_preprocessing_gives_the_log_probs_of_keras(keras, network, mode):
    proto = convert(KerasNetwork(network, {}), "small", mode).model.proto
    expected = keras_answer(keras, network, "softmax", pixels_of(7), mode)
    np.testing.assert_allclose(answer(proto, pixels_of(7)), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("opset", [13, 15, 18])
def test_every_opset(keras, network, opset):
    proto = convert(KerasNetwork(network, {}), "small", "caffe", opset=opset).model.proto
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    expected = keras_answer(keras, network, "softmax", pixels_of(2))
    np.testing.assert_allclose(answer(proto, pixels_of(2)), expected, rtol=0, atol=1e-4)


def test_the_graph_is_rewritten(converted):
    graph = converted.model.proto.graph
    assert not {"BatchNormalization", "MatMul", "Softmax", "Mul"} & set(operators(graph))
    [pool] = [node for node in graph.node if node.op_type == "MaxPool"]
    assert next(item.ints for item in pool.attribute if item.name == "pads") == [1, 1, 1, 1]
    assert converted.rewritten["pad into max pool"] == converted.rewritten["dense as gemm"] == 1


def test_the_weights_are_named_and_folded_like_keras_own(converted, network):
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in converted.model.proto.graph.initializer}
    for conv, norm in (("stem_conv", "stem_bn"), ("block_conv", "block_bn")):
        kernel, *bias = (value.astype(np.float64) for value in network.get_layer(conv).get_weights())
        gamma, beta, mean, variance = (
            value.astype(np.float64) for value in network.get_layer(norm).get_weights()
        )
        scale = gamma / np.sqrt(variance + network.get_layer(norm).epsilon)
        expected = (kernel * scale).transpose(3, 2, 0, 1)
        np.testing.assert_allclose(found[f"{conv}/kernel"], expected, rtol=1e-5, atol=1e-8)
        shift = beta + ((bias[0] if bias else 0) - mean) * scale
        np.testing.assert_allclose(found[f"{conv}/bias"], shift, rtol=1e-5, atol=1e-6)
    for role, value in zip(("kernel", "bias"), network.get_layer("dense").get_weights(), strict=True):
        np.testing.assert_array_equal(found[f"dense/{role}"], value)


def test_layers_with_keras_own_default_names(keras):
    """`conv2d_1` in a traced graph is the first call of `conv2d`, or the layer of that name."""
    layers = keras.layers
    x = inputs = keras.Input((24, 24, 3))
    for _ in range(3):
        x = layers.Conv2D(3, 3, activation="relu", bias_initializer="normal")(x)
    x = layers.GlobalAveragePooling2D()(x)
    for _ in range(2):
        x = layers.Dense(3, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    proto = convert(KerasNetwork(model, {}), "default", "tf").model.proto
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for layer in (layer for layer in model.layers if layer.weights):
        kernel, bias = layer.get_weights()
        expected = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
        np.testing.assert_array_equal(found[f"{layer.name}/kernel"], expected, err_msg=layer.name)
        np.testing.assert_array_equal(found[f"{layer.name}/bias"], bias, err_msg=layer.name)


def test_metadata(converted, network):
    metadata = converted.model.metadata
    assert metadata.classes == tuple(CLASSES)
    assert metadata.preprocessing == of_mode("caffe", 3)
    assert metadata.trainable == ("dense",)
    assert metadata.source == {"file": "small"}
    assert [(layer.name, layer.kind, layer.units, layer.trainable) for layer in metadata.layers] == [
        ("stem_conv", "Conv2D", 8, False),
        ("stem_bn", "BatchNormalization", None, False),
        ("block_conv", "Conv2D", 8, False),
        ("block_bn", "BatchNormalization", None, False),
        ("dense", "Dense", 4, True),
    ]
    counts = metadata.parameters
    assert counts.total == network.count_params()
    assert counts.trainable == 8 * 4 + 4
    assert counts.statistics == 2 * (8 + 8)


def with_preprocessing(converted, **changes):
    caffe = vars(of_mode("caffe", 3))
    return uint8_input.with_preprocessing(converted.model, Preprocessing(**{**caffe, **changes})).serialized()


@pytest.mark.parametrize(
    "wrong",
    [
        {"bgr": False},
        {"offset": (0.0, 0.0, 0.0)},
        {"offset": (-123.68, -116.779, -103.939)},
        {"scale": (1 / 255,) * 3},
    ],
    ids=["RGB", "no mean", "mean of RGB", "scaled"],
)
def test_parity_refuses_a_wrong_preprocessing(converted, network, wrong):
    with pytest.raises(ModelError, match=r"^small: parity check failed: .* at batch 1 differs"):
        parity.check(with_preprocessing(converted, **wrong), network, of_mode("caffe", 3), "small")


def test_parity_refuses_the_weights_of_another_network(keras, converted):
    other = small_network(keras)
    kernel, bias = other.get_layer("dense").get_weights()
    other.get_layer("dense").set_weights([kernel, bias + np.array([0, 0, 0, 1e-3])])
    with pytest.raises(ModelError, match="parity check failed"):
        parity.check(converted.model.serialized(), other, of_mode("caffe", 3), "small")
    with pytest.raises(ModelError, match=r"shape \(1, 4\), Keras \(1, 9\)"):
        parity.check(
            converted.model.serialized(), small_network(keras, units=9), of_mode("caffe", 3), "small"
        )


def test_parity_tells_the_difference_per_batch(converted, network):
    found = parity.check(with_preprocessing(converted), network, of_mode("caffe", 3), "small")
    assert set(found.differences) == {1, 7}
    assert max(found.differences.values()) < 1e-4
    assert "tolerance 0.0001" in str(found)


def test_parity_images_have_the_statistics_of_photos():
    images = parity.natural_images(8, 64, 64, 3)
    assert images.dtype == np.uint8
    assert np.abs(images.mean(axis=(0, 1, 2)) - [123.7, 116.3, 103.5]).max() < 10
    assert 45 < images.std() < 65
    # Amplitude 1/f: neighbours go together, where white noise would differ by 1.13 deviations.
    assert np.abs(np.diff(images.astype(float), axis=2)).mean() < 0.6 * images.std()
    assert np.corrcoef(images.reshape(-1, 3).T).min() > 0.5, "channels go together"
    assert (images != parity.natural_images(8, 64, 64, 3, seed=1)).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ModelError, "preprocessing of this network is not recognised"),
        ({"preprocess": "rgb"}, ConfigError, "--preprocess rgb: choose auto, caffe"),
        ({"preprocess": "tf", "opset": 12}, ConfigError, "--opset 12: choose 13 to 18"),
        ({"preprocess": "tf", "opset": 19}, ConfigError, "--opset 19"),
        ({"preprocess": "tf", "classes": ["a", "b"]}, ConfigError, "4 classes, the labels 2"),
    ],
)
def test_options_that_do_not_fit_are_refused(network, options, error, message):
    with pytest.raises(error, match=message):
        convert(KerasNetwork(network, {}), "small", **options)


def of_shape(keras, *shape, last="Dense", **options):
    inputs = keras.Input(shape)
    if last == "Conv2D":
        return keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, **options)(pooled))


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((None, None, 3), {}, ModelError, "fixed height and width"),
        ((8, 8, 4), {}, ModelError, "1 or 3 channels"),
        ((8, 8, 1), {}, ConfigError, "caffe preprocessing needs 3 channels"),
        ((8, 8, 3), {"last": "Conv2D"}, ModelError, "one image input and one score per class"),
        ((8, 8, 3), {"activation": "sigmoid"}, ModelError, "ends in Sigmoid"),
    ],
)
def test_what_is_no_classifier_of_photos_is_refused(keras, shape, options, error, message):
    with pytest.raises(error, match=message):
        convert(KerasNetwork(of_shape(keras, *shape, **options), {}), "odd", "caffe")


def test_two_outputs_are_refused(keras, network):
    two = keras.Model(network.input, [network.output, network.get_layer("average").output])
    with pytest.raises(ModelError, match="one image input and one score per class"):
        convert(KerasNetwork(two, {}), "two", "tf")


def test_one_channel(keras):
    model = of_shape(keras, 24, 24, 1)
    proto = convert(KerasNetwork(model, {}), "gray", "tf").model.proto
    gray = pixels_of(3)[..., :1]
    scores = keras_answers(model, gray.astype(np.float32) / 127.5 - 1)
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(answer(proto, gray), expected, rtol=0, atol=1e-4)


def test_a_compiled_sequential_model(keras):
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D(name="average")]
    layers.append(keras.layers.Dense(3, activation="softmax", name="dense"))
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save("chain.keras")
    found = convert(keras_source.full_model(Path("chain.keras")), "chain", "unit").model.proto
    pixels = parity.natural_images(7, 16, 16, 3, seed=9)
    expected = np.log(keras_answers(model, pixels / np.float32(255)))
    np.testing.assert_allclose(answer(found, pixels), expected, atol=1e-4)
