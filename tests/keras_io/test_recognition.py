"""Which preprocessing a network wants: the right one of keras.applications, or no answer; not a wrong one."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.networks import mode_of
from birdsonnx.errors import ModelError
from birdsonnx.keras_io import architectures, recognition
from birdsonnx.keras_io.conversion import convert
from birdsonnx.keras_io.reading import KerasFile, graph_of, read, read_into
from tests.networks import as_read, keras_2_json, keras_warns, small_network

pytestmark = keras_warns

ONE_OF_EACH = (
    *("ResNet50", "ResNet50V2", "VGG16", "VGG19", "DenseNet121", "InceptionV3", "InceptionResNetV2"),
    *("Xception", "MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0"),
    *("NASNetMobile", "ConvNeXtTiny"),
)


def recognised(file: KerasFile) -> str | None:
    """The mode, or None, for a network that was read."""
    weighted = {layer.name for layer in file.layers if layer.kind != "Normalization"}
    steps = [(layer.kind, layer.config) for _, layer, _ in file.leaves if not layer.is_operation]
    return recognition.preprocessing_of(graph_of(file).model, weighted, steps)


def preprocessing_of(model):
    """That of a Keras model, by its JSON: the weights do not matter."""
    return recognised(read_into(json.loads(model.to_json()), None, 0, "network"))


def built(keras, name, size=96, **options):
    options = {"weights": None, "include_top": False, "input_shape": (size, size, 3), **options}
    return getattr(keras.applications, name)(**options)


def described(name, size=96):
    """The JSON that Keras writes of the network, without Keras (`test_architectures` compares them)."""
    return architectures.described(name, 3, "none", (size, size))[1]


def recognised_json(content):
    return recognised(read_into(content, None, 0, "network"))


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in ONE_OF_EACH])
def test_each_family_under_any_name(name):
    """What is right is what the network's own `preprocess_input` does."""
    content = described(name)
    assert recognised_json(content) == mode_of(name)
    names = {layer["config"]["name"] for layer in content["config"]["layers"]}
    anonymous = renamed(content, {name: f"{name}_of_mine" for name in names})
    anonymous["config"]["name"] = "vgg16" if name != "VGG16" else "mobilenet"
    assert not {layer["config"]["name"] for layer in anonymous["config"]["layers"]} & names
    assert recognised_json(anonymous) == mode_of(name)


def renamed(content, names):
    """The same JSON with other layer names, also where layers refer to each other. A layer of DenseNet has
    the name of an activation, which stays."""
    if isinstance(content, dict):
        kept = {"activation"} & content.keys()
        return {key: content[key] if key in kept else renamed(content[key], names) for key in content}
    if isinstance(content, list):
        return [renamed(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.DEFAULT_SIZES)
def test_every_network_that_keras_builds(keras, name):
    assert preprocessing_of(built(keras, name, pooling="max")) == mode_of(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNet", {"alpha": 0.5}),
        ("MobileNetV2", {"alpha": 0.35, "size": 33, "pooling": "max"}),
        ("MobileNetV2", {"alpha": 1.4, "include_top": True, "classes": 7}),
        ("MobileNetV3Large", {"alpha": 0.75, "minimalistic": True}),
        ("VGG16", {"include_top": True, "classes": 4, "size": 32}),
        ("ResNet50", {"size": 37, "pooling": "avg"}),
    ],
)
def test_other_widths_sizes_and_tops(keras, name, options):
    assert preprocessing_of(built(keras, name, **options)) == mode_of(name)


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV2", "ResNet50"])
def test_a_json_of_keras_2(keras, name):
    backbone = built(keras, name, 32, pooling="avg")
    assert recognised(read_into(keras_2_json(backbone), None, 0, "old.json")) == mode_of(name)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_whole_files(keras, mobilenet, suffix):
    """Flat, nested, and with its preprocessing inside."""
    layers = keras.layers
    chain = keras.Sequential([mobilenet, layers.GlobalAveragePooling2D(), layers.Dense(3)])
    assert recognised(as_read(mobilenet, suffix)) == recognised(as_read(chain, suffix)) == "tf"
    inputs = keras.Input((32, 32, 3))
    prepared = keras.applications.mobilenet_v2.preprocess_input(inputs)
    own = keras.Model(inputs, layers.GlobalAveragePooling2D()(mobilenet(prepared)))
    assert recognised(as_read(own, suffix)) == "none"


ZOOS = sorted((Path(__file__).resolve().parents[2] / "build").glob("keras2-*"))
OWN_RANGE = ("layers_of_all_kinds",)
"""Nobody can know what these take."""


@pytest.mark.slow
@pytest.mark.skipif(not ZOOS, reason="no files of Keras 2; scripts/keras2 makes them")
@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("zoo", ZOOS, ids=lambda path: path.name)
def test_files_of_keras_2(zoo, suffix):
    for network in sorted(zoo.glob("*.preprocess")):
        if network.stem not in OWN_RANGE:
            assert recognised(read(network.with_suffix(f".{suffix}"))) == network.read_text(), network.stem


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_one_channel_is_scaled_to_1_and_said(mode):
    """Also a network of keras.applications, as rmldnn feeds them."""
    file = architectures.read("ResNet50", 3, "none", size=(32, 32), channels=1)
    found = convert(file, "gray", mode)
    assert found.model.metadata.preprocessing.name == ("unit" if mode == "auto" else "none")
    assert [note for note in found.notes if note.startswith("gray: takes one channel, values in [0, 1]")] == (
        found.notes if mode == "auto" else []
    )


def test_other_networks_of_three_channels_are_refused(keras):
    with pytest.raises(ModelError, match=r"^x: the preprocessing of this network is not recognised"):
        convert(as_read(small_network(keras)), "x")


def test_the_momentum_of_a_batch_norm_does_not_matter(keras, mobilenet):
    """It is for training alone; Keras' MobileNetV2 has 0.999."""

    def otherwise(layer):
        changes = {"momentum": 0.9} if type(layer).__name__ == "BatchNormalization" else {}
        return type(layer).from_config({**layer.get_config(), **changes})

    other = keras.models.clone_model(mobilenet, clone_function=otherwise)
    assert preprocessing_of(other) == "tf"


def test_a_cut_off_tail(keras):
    backbone = built(keras, "ResNet50", 64)
    cut = keras.Model(backbone.input, backbone.get_layer("conv4_block6_out").output)
    assert preprocessing_of(cut) == "caffe"
    stem = keras.Model(backbone.input, backbone.get_layer("conv2_block1_out").output)
    assert preprocessing_of(stem) is None, "too little to tell"


def transfer(keras, backbone, front, twice=False):
    """The usual idiom: `front` layers, the backbone as a layer, a head."""
    layers = keras.layers
    x = inputs = keras.Input(backbone.input_shape[1:])
    for layer in front:
        x = layer(x)
    if twice:
        inner = keras.Input(backbone.input_shape[1:])
        backbone = keras.Model(inner, backbone(inner))
    x = layers.GlobalAveragePooling2D()(backbone(x, training=False))
    x = layers.BatchNormalization()(layers.Dense(8, activation="relu")(layers.Dropout(0.2)(x)))
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.fixture(scope="module")
def mobilenet(keras):
    return built(keras, "MobileNetV2", 32, alpha=0.35)


@pytest.mark.parametrize("twice", [False, True])
def test_nested_behind_augmentation(keras, mobilenet, twice):
    layers = keras.layers
    front = [
        layers.RandomFlip(),
        layers.RandomRotation(0.2),
        layers.RandomZoom(0.2),
        layers.GaussianNoise(0.1),
    ]
    assert preprocessing_of(transfer(keras, mobilenet, front, twice)) == "tf"
    assert preprocessing_of(transfer(keras, mobilenet, [keras.Sequential(front)], twice)) == "tf"
    chain = keras.Sequential([mobilenet, layers.GlobalAveragePooling2D(), layers.Dense(3)])
    assert preprocessing_of(chain) == "tf"
    behind = keras.Sequential([keras.Input((32, 32, 3)), keras.Sequential(front), chain])
    assert preprocessing_of(behind) == "tf"


@pytest.mark.parametrize("twice", [False, True])
def test_a_network_that_preprocesses_by_itself_wants_raw_pixels(keras, mobilenet, twice):
    layers = keras.layers
    fronts = [
        [layers.Rescaling(1 / 127.5, offset=-1)],
        [layers.RandomFlip(), layers.Rescaling(1 / 255)],
        [layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3409, 3260, 3292])],
        [keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 127.5, -1)])],
    ]
    for front in fronts:
        assert preprocessing_of(transfer(keras, mobilenet, front, twice)) == "none"


@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet_v2"])
def test_preprocess_input_in_the_graph(keras, mobilenet, name):
    inputs = keras.Input((32, 32, 3))
    prepared = getattr(keras.applications, name).preprocess_input(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(mobilenet(prepared)))
    assert preprocessing_of(model) == "none"


@pytest.mark.parametrize(
    "front",
    [
        lambda layers: [layers.Rescaling(255)],  # for values 0-1
        lambda layers: [layers.Rescaling(2, offset=-1)],
        lambda layers: [layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.05, 0.05, 0.05])],
        lambda layers: [layers.MaxPooling2D(2), layers.UpSampling2D(2), layers.Rescaling(0)],
    ],
)
def test_values_that_are_not_pixels_are_not_guessed(keras, mobilenet, front):
    assert preprocessing_of(transfer(keras, mobilenet, front(keras.layers))) is None


def own_cnn(keras, stem, filters=(64, 64, 128, 128, 256, 256), norm=False):
    """What people write themselves: convolutions, BatchNorm, pooling."""
    layers = keras.layers
    chain = [keras.Input((64, 64, 3)), *stem]
    for width in filters:
        chain.append(layers.Conv2D(width, 3, padding="same", activation=None if norm else "relu"))
        chain += [layers.BatchNormalization(), layers.ReLU()] if norm else []
        chain += [layers.MaxPooling2D()] if width % 128 else []
    return keras.Sequential([*chain, layers.GlobalAveragePooling2D(), layers.Dense(3)])


def test_a_network_of_ones_own_is_not_taken_for_another(keras):
    layers = keras.layers
    stems = [
        [],
        [layers.ZeroPadding2D(3), layers.Conv2D(64, 7, 2), layers.BatchNormalization(epsilon=1.001e-5)],
        [layers.Conv2D(32, 3, 2, use_bias=False), layers.BatchNormalization(), layers.ReLU(6)],
        [layers.Conv2D(32, 3, 2, use_bias=False), layers.BatchNormalization(scale=False), layers.ReLU()],
    ]
    for stem in stems:
        for norm in (False, True):
            assert preprocessing_of(own_cnn(keras, stem, norm=norm)) is None
    assert preprocessing_of(small_network(keras)) is None
    for front, mode in (([], None), ([layers.Rescaling(1 / 255)], "none")):
        flat = [keras.Input((28, 28, 1)), *front, layers.Flatten(), layers.Dense(10)]
        assert preprocessing_of(keras.Sequential(flat)) == mode


@pytest.mark.parametrize(
    ("name", "layer", "change"),
    [
        ("ResNet50", "conv1_bn", {"epsilon": 1e-3}),
        ("ResNet50", "conv2_block2_1_conv", {"use_bias": False}),
        ("VGG16", "block4_conv3", {"filters": 256}),
        ("MobileNetV2", "block_3_depthwise_BN", {"epsilon": 0.002}),
    ],
)
def test_one_layer_of_another_kind_is_another_network(name, layer, change):
    content = described(name, 32)
    [config] = [item["config"] for item in content["config"]["layers"] if item["config"]["name"] == layer]
    assert change.keys() <= config.keys()
    config |= change
    assert recognised_json(content) is None


def test_no_signature_begins_as_another(keras):
    modes = [(mode, tokens) for mode, tokens in recognition.SIGNATURES.values()]
    for number, (mode, tokens) in enumerate(modes):
        for other, begins in modes[number + 1 :]:
            length = min(len(tokens), len(begins))
            assert tokens[:length] != begins[:length] or mode == other
    assert np.mean([len(tokens) for _, tokens in modes]) > 25
