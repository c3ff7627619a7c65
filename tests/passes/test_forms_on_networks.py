"""The forms in which people write a classifier: each converts with parity or is refused in one clear line."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.networks import realistic
from birdsonnx.errors import ModelError
from birdsonnx.keras_io import parity
from birdsonnx.keras_io.conversion import convert
from birdsonnx.keras_io.reading import read, read_into
from birdsonnx.keras_io.tf2onnx_road.keras_network import flat_layers
from birdsonnx.passes import dropout
from birdsonnx.passes.batch_norm import CALLED_TWICE
from tests.graphs import answer, operators
from tests.networks import as_read, keras_2_json, keras_answers, keras_warns

pytestmark = keras_warns
SHAPE = (20, 28, 3)


@pytest.fixture(autouse=True)
def seeded(keras):
    keras.utils.set_random_seed(3)


def body(keras, x):
    layers = keras.layers
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def pooled(keras, x, units=4, **options):
    return keras.layers.Dense(units, **options)(keras.layers.GlobalAveragePooling2D()(x))


def network(keras, front=(), head=pooled, shape=SHAPE, dtype=None):
    """Layers before, a convolution with BatchNorm, a head."""
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in front:
        x = layer(x)
    return keras.Model(inputs, head(keras, body(keras, x)))


def converted(model, mode="tf", suffix=".keras"):
    """Convert a network with statistics and, where it ends in a Dense, with a head that differ from what
    is fresh; then compare with Keras."""
    scale = (lambda pixels: pixels) if mode == "none" else tf_pixels
    if type(model.layers[-1]).__name__ == "Dense":
        realistic(model, scale)
    else:
        generator = np.random.default_rng(0)
        for layer in leaves(model):
            values = layer.get_weights()
            layer.set_weights([value + generator.uniform(0, 0.5, value.shape) for value in values])
    found = convert(as_read(model, suffix), "form", mode)
    same_as_keras(found, model, scale)
    return found


def same_as_keras(found, model, scale):
    pictures = parity.natural_images(3, *model.inputs[0].shape[1:], seed=11)
    scores = keras_answers(model, scale(pictures.astype(np.float32))).astype(np.float64)
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1):
        scores = np.log(scores)
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    log_probs = answer(found.model.proto, pictures)
    assert np.ptp(expected, axis=0).max() > 0.02, "pictures differ"
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5, atol=1e-4)


def tf_pixels(pixels):
    """Keras' preprocessing `tf`."""
    return pixels / 127.5 - 1


def leaves(model):
    return [layer for layer in flat_layers(model) if layer.weights]


AUGMENTATION = {
    "RandomFlip": {},
    "RandomRotation": {"factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
    "RandomContrast": {"factor": 0.2},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomBrightness": {"factor": 0.2},
    "RandomColorJitter": {"brightness_factor": 0.1},
    "Dropout": {"rate": 0.2},
    "SpatialDropout2D": {"rate": 0.2},
    "AlphaDropout": {"rate": 0.2},
    "GaussianNoise": {"stddev": 0.1},
    "GaussianDropout": {"rate": 0.1},
}


def test_what_acts_in_training_only_is_not_in_the_graph(keras):
    """Also in the middle."""
    front = [getattr(keras.layers, name)(**options) for name, options in AUGMENTATION.items()]
    names = [layer.name for layer in front]
    plain, augmented = network(keras), network(keras, front)
    graph = converted(augmented).model.proto.graph
    dropout.take_out(graph)  # the one that acts in our training too
    assert operators(graph) == operators(converted(plain).model.proto.graph)
    assert not [node.name for node in graph.node if any(name in node.name for name in names)]


PIXEL_LAYERS = [
    ("Rescaling", "none", {"scale": 1 / 127.5, "offset": -1}),
    ("Rescaling", "none", {"scale": [1 / 255, 1 / 128, 1 / 64], "offset": [0, -1, 0.5]}),
    ("Normalization", "none", {"mean": [120, 110, 100], "variance": [3000, 3100, 3200]}),
    ("CenterCrop", "tf", {"height": 15, "width": 18}),
    ("Resizing", "tf", {"height": 16, "width": 16}),
    ("ZeroPadding2D", "tf", {"padding": ((1, 2), (0, 3))}),
    ("Cropping2D", "tf", {"cropping": ((1, 2), (0, 3))}),
]


@pytest.mark.parametrize(("name", "mode", "options"), PIXEL_LAYERS)
def test_layers_that_change_pixels(keras, name, mode, options):
    converted(network(keras, [getattr(keras.layers, name)(**options)]), mode)


def test_an_adapted_normalization(keras):
    layer = keras.layers.Normalization()
    layer.adapt(parity.natural_images(8, *SHAPE).astype(np.float32))
    model = network(keras, [layer])
    converted(model, "none")
    assert convert(as_read(model), "auto").model.metadata.preprocessing.name == "none"


@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet_v2"])
def test_preprocess_input_in_the_graph(keras, name):
    """From a file too; ResNet's turns the channels round."""
    inputs = keras.Input(SHAPE)
    x = getattr(keras.applications, name).preprocess_input(inputs)
    model = keras.Model(inputs, pooled(keras, body(keras, x)))
    converted(model, "none")
    for suffix in (".keras", ".h5"):
        assert convert(as_read(model, suffix), "own").model.metadata.preprocessing.name == "none"


@pytest.mark.parametrize("shape", [(28, 28, 1), (17, 30, 1), (21, 16, 3)])
def test_sizes_and_channels(keras, shape):
    found = converted(network(keras, shape=shape))
    assert found.model.input_size == shape


def test_pixels_as_integers(keras):
    converted(network(keras, [keras.layers.Rescaling(1 / 255)], dtype="uint8"), "none")


def test_gray_pictures_for_a_network_of_colours(keras):
    inputs = keras.Input((24, 24, 1))
    x = keras.layers.Concatenate()([inputs] * 3)
    converted(keras.Model(inputs, pooled(keras, body(keras, x))))


def backbone(keras, twice=False):
    inputs = keras.Input(SHAPE)
    inner = keras.Model(inputs, body(keras, inputs), name="inner")
    if not twice:
        return inner
    outer = keras.Input(SHAPE)
    return keras.Model(outer, inner(outer), name="outer")


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("outside", ["Functional", "Sequential", "Sequential after augmentation"])
def test_nested_backbones(keras, outside, twice):
    layers, inner = keras.layers, backbone(keras, twice)
    if outside == "Functional":
        inputs = keras.Input(SHAPE)
        model = keras.Model(inputs, pooled(keras, inner(inputs, training=False)))
    else:
        front = (
            [keras.Sequential([layers.RandomFlip(), layers.RandomZoom(0.1)])] if "after" in outside else []
        )
        chain = [*front, inner, layers.GlobalMaxPooling2D(), layers.Dropout(0.5), layers.Dense(4)]
        model = keras.Sequential([keras.Input(SHAPE), *chain] if front else chain)
    found = converted(model)
    names = [layer.name for layer in found.model.metadata.layers]
    assert len(names) == 3
    assert names[0].startswith("conv2d")
    model.save("nested.h5")
    expected = [layer.get_weights() for layer in leaves(model)]
    again = read_into(json.loads(model.to_json()), Path("nested.h5"), 0, "l.json")
    old = read_into(keras_2_json(model), Path("nested.h5"), 0, "old.json")
    for file in (again, old):
        assert not [note for note in file.notes if "fresh" in note]
        for mine, theirs in zip(expected, file.weights.values(), strict=True):
            np.testing.assert_array_equal(flattened(mine), flattened(theirs.values()))
    same_as_keras(convert(old, "old", "tf"), model, tf_pixels)
    with h5py.File("nested.h5", "a") as file:
        file.attrs["model_config"] = json.dumps(keras_2_json(model))
    same_as_keras(convert(read(Path("nested.h5")), "whole", "tf"), model, tf_pixels)


def flattened(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def test_nested_weights_as_keras_2_named_them(keras):
    """One group for the nested model, `:0` after each name."""
    model = keras.Sequential([backbone(keras), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)])
    generator = np.random.default_rng(1)
    values = {
        layer.name: [generator.random(item.shape) for item in layer.get_weights()] for layer in leaves(model)
    }
    with h5py.File("two.h5", "w") as file:
        file.attrs["layer_names"] = ["inner", model.layers[-1].name]
        for group, inside in (("inner", list(values)[:2]), (model.layers[-1].name, list(values)[2:])):
            pairs = [
                (f"{name}/weight_{number}:0", value)
                for name in inside
                for number, value in enumerate(values[name])
            ]
            file.create_group(group).attrs["weight_names"] = [name for name, _ in pairs]
            for name, value in pairs:
                file[group][name] = value
    file = read_into(json.loads(model.to_json()), Path("two.h5"), 0, "l.json")
    assert file.notes == []
    for name, held in file.weights.items():
        np.testing.assert_allclose(flattened(held.values()), flattened(values[name]), rtol=1e-6)


def test_two_layers_of_one_name_get_their_own_weights(keras):
    layers, inner = keras.layers, backbone(keras)
    clash = inner.layers[1].name
    chain = [inner, layers.Conv2D(3, 1, name=clash), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = keras.Sequential(chain)
    model.save("clash.h5")
    file = read_into(json.loads(model.to_json()), Path("clash.h5"), 0, "l.json")
    assert file.notes == []
    for mine, theirs in zip(leaves(model), file.weights.values(), strict=True):
        np.testing.assert_array_equal(flattened(mine.get_weights()), flattened(theirs.values()))


def test_weights_by_name_want_names(keras):
    """Where the order of the layers does not tell either."""
    layers, inner = keras.layers, backbone(keras)
    clash = inner.layers[1].name
    chain = [inner, layers.Conv2D(3, 1, name=clash)]
    pooling = layers.GlobalAveragePooling2D()
    keras.Sequential([*chain, pooling, layers.Dense(2)]).save("clash.h5")
    other = keras.Sequential([*chain, layers.Conv2D(9, 1), pooling, layers.Dense(2)])
    with pytest.raises(ModelError, match=rf"clash\.h5: .* two layers called '{clash}'"):
        read_into(json.loads(other.to_json()), Path("clash.h5"), 0, "l.json")


def flat_head(keras, x):
    """Several Dense layers, as VGG has them."""
    layers = keras.layers
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    x = layers.Dropout(0.5)(layers.Dense(12, activation="gelu")(x))
    x = layers.BatchNormalization()(layers.Dense(8, activation="swish")(x))
    return layers.Dense(4, activation="softmax", name="predictions")(x)


def maps_head(end):
    """A convolution gives the scores, as in MobileNet V1 and V3."""

    def head(keras, x):
        layers = keras.layers
        x = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
        if end == "softmax first":
            return layers.Flatten()(layers.Softmax()(x))
        return layers.Activation("softmax")(layers.Reshape((4,))(x))

    return head


HEADS = {
    "softmax": lambda keras, x: pooled(keras, x, activation="softmax"),
    "log_softmax": lambda keras, x: pooled(keras, x, activation="log_softmax"),
    "Softmax layer": lambda keras, x: keras.layers.Softmax()(pooled(keras, x)),
    "Activation layer": lambda keras, x: keras.layers.Activation("softmax")(pooled(keras, x)),
    "Activation log": lambda keras, x: keras.layers.Activation("log_softmax")(pooled(keras, x)),
    "linear layer": lambda keras, x: keras.layers.Activation("linear")(pooled(keras, x)),
    "no bias": lambda keras, x: pooled(keras, x, activation="softmax", use_bias=False),
    "maximum": lambda keras, x: keras.layers.Dense(4)(keras.layers.GlobalMaxPooling2D()(x)),
    "several": flat_head,
    "maps": maps_head("reshape"),
    "maps, softmax first": maps_head("softmax first"),
    "mean of maps": lambda keras, x: keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1)(x)),
    "temperature": lambda keras, x: keras.layers.Rescaling(0.5)(pooled(keras, x)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(keras, name):
    model = network(keras, head=HEADS[name])
    assert converted(model).model.num_classes == 4
    model.save("network.h5")
    same_as_keras(convert(read(Path("network.h5"), keras_2_json(model)), "old", "tf"), model, tf_pixels)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_other_precisions_compute_in_float32(keras, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = network(keras)
    finally:
        keras.config.set_dtype_policy("float32")
    exact = network(keras)
    realistic(exact, tf_pixels)
    model.set_weights(exact.get_weights())
    exact.set_weights([np.asarray(value, np.float32) for value in model.get_weights()])
    found = convert(as_read(model), "mixed", "tf")
    assert [note for note in found.notes if "float32" in note]
    same_as_keras(found, exact, tf_pixels)


@pytest.mark.parametrize("name", ["0", "a.b-c", "_hidden", "a>b", "conv2d_1_1", "conv 1", "a:0", "größe"])
def test_names_of_all_kinds(keras, name):
    """TensorFlow cannot run the last three."""

    def called(name):
        layers = keras.layers
        inputs = keras.Input(SHAPE)
        x = layers.BatchNormalization(name=f"{name}_bn")(layers.Conv2D(4, 3, name=name)(inputs))
        return keras.Model(inputs, layers.Dense(4, name=f"{name}_out")(layers.GlobalAveragePooling2D()(x)))

    plain, model = called("plain"), called(name)
    realistic(plain, tf_pixels)
    model.set_weights(plain.get_weights())
    found = convert(as_read(model), "named", "tf")
    same_as_keras(found, plain, tf_pixels)
    graph = found.model.proto.graph
    assert {f"{name}/kernel", f"{name}/bias", f"{name}_out/kernel"} <= {
        item.name for item in graph.initializer
    }


def test_a_convolution_called_twice_with_a_norm_each(keras):
    layers = keras.layers
    inputs, shared = keras.Input(SHAPE), layers.Conv2D(6, 3, padding="same")
    x = layers.BatchNormalization()(shared(body(keras, inputs)))
    y = layers.BatchNormalization()(shared(layers.ReLU()(x)))
    model = keras.Model(inputs, pooled(keras, layers.ReLU()(layers.Add()([x, y]))))
    found = converted(model)
    kernels = [node.input[1] for node in found.model.proto.graph.node if node.op_type == "Conv"]
    assert kernels[1:] == [f"{shared.name}/kernel"] * 2, "trained as one"
    assert found.declined == {"batch norm": {CALLED_TWICE: 2}}


def test_grouped_separable_and_normalised_layers(keras):
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, groups=3, padding="same")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2)(layers.LayerNormalization()(x))
    x = layers.Dense(8, "gelu", bias_initializer="normal")(layers.SeparableConv2D(5, 3, dilation_rate=2)(x))
    converted(keras.Model(inputs, pooled(keras, layers.PReLU(shared_axes=[1, 2])(x))))


def ending(activation):
    return lambda keras, x: pooled(keras, x, activation=activation)


def channels_first(keras):
    layers, first = keras.layers, {"data_format": "channels_first"}
    x = inputs = keras.Input((3, 20, 20))
    x = layers.GlobalAveragePooling2D(**first)(layers.Conv2D(4, 3, name="conv", **first)(x))
    return keras.Model(inputs, layers.Dense(4)(x))


REFUSED = {
    "sigmoid": (
        lambda keras: network(keras, head=ending("sigmoid")),
        "ends in Sigmoid; a classifier ends in",
    ),
    "tanh": (lambda keras: network(keras, head=ending("tanh")), "ends in Tanh"),
    "swish": (lambda keras: network(keras, head=ending("swish")), "ends in Mul"),
    "one output": (
        lambda keras: network(keras, head=lambda keras, x: pooled(keras, x, 1, activation="sigmoid")),
        "one output for two classes",
    ),
    "channels_first": (channels_first, "layer 'conv' is channels_first"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(keras, name):
    build, message = REFUSED[name]
    with pytest.raises(ModelError, match=f"^odd: .*{message}") as refusal:
        convert(replace(as_read(build(keras)), where="odd"), "odd", "tf")
    assert "\n" not in str(refusal.value)
