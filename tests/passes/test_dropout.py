"""Keras' Dropout layers in the file, and which of them act in training."""

import numpy as np
import onnx
import pytest

from birdsonnx.keras_io import conversion
from birdsonnx.model.graph import Graph
from birdsonnx.model.metadata import INPUT, Dropout
from birdsonnx.model.model_file import parse
from birdsonnx.passes import dropout, quantization
from birdsonnx.training.partition import Network
from tests.graphs import answer, operators
from tests.networks import as_read, keras_answers, keras_warns

pytestmark = keras_warns

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)


def convert(keras, body, head=True):
    """What becomes of `body`, a function of a tensor of 12 x 12 x 6, after a first convolution."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = body(layers.Conv2D(6, 3, padding="same", name="first")(inputs), layers)
    if head:
        x = layers.Dense(3, activation="log_softmax", name="head")(layers.Flatten(name="flat")(x))
    network = keras.Model(inputs, x)
    return conversion.convert(as_read(network), "test", "unit"), network


@pytest.fixture(scope="module")
def several(keras):
    """One of each kind, in a nested model, twice on one tensor, and one that drops nothing."""

    def body(x, layers):
        inner = keras.Input((12, 12, 6))
        y = layers.SpatialDropout2D(0.2, name="maps")(inner)
        nested = keras.Model(inner, layers.Conv2D(5, 3, activation="relu", name="inside")(y), name="nested")
        x = layers.Dropout(0.1, noise_shape=(None, 1, 1, 1), name="photos")(nested(x))
        x = layers.Add()([layers.Dropout(0.5, name="left")(x), layers.Dropout(0.5, name="right")(x)])
        x = layers.MaxPooling2D(name="pool")(layers.Dropout(0, name="nothing")(x))
        x = layers.Dense(7, activation="relu", name="hidden")(layers.Flatten()(x))
        return layers.Dropout(0.4, name="last")(x)

    return convert(keras, body)


def test_the_metadata_say_what_is_dropped(several):
    found = several[0].model.metadata.dropout
    assert sorted(found, key=lambda each: each.node) == [
        Dropout("last/Dropout", 0.4, (7,)),
        Dropout("left/Dropout", 0.5, (5, 10, 10)),
        Dropout("maps/Dropout", 0.2, (6, 1, 1)),
        Dropout("photos/Dropout", 0.1, (1, 1, 1)),
        Dropout("right/Dropout", 0.5, (5, 10, 10)),
    ]
    again = parse(several[0].model.serialized(), "again")
    assert again.metadata.dropout == found


def test_the_graph_has_a_plain_node_for_each(several):
    model = several[0].model
    onnx.checker.check_model(model.proto, full_check=True)
    graph = Graph(model.proto.graph)
    nodes = {node.name: node for node in model.proto.graph.node if node.op_type == "Dropout"}
    assert nodes.keys() == {each.node for each in model.metadata.dropout}
    for each in model.metadata.dropout:
        assert not nodes[each.node].attribute
        assert graph.constant(nodes[each.node].input[1]) == np.float32(each.rate)
    assert graph.producers[nodes["last/Dropout"].input[0]].name.startswith("hidden/")
    assert nodes["left/Dropout"].input[0] == nodes["right/Dropout"].input[0] != ""


def test_prediction_drops_nothing(several):
    conversion_, network = several
    scores = keras_answers(network, PIXELS / np.float32(255))
    np.testing.assert_allclose(answer(conversion_.model.proto, PIXELS), scores, rtol=0, atol=1e-5)
    bare = onnx.ModelProto.FromString(conversion_.model.proto.SerializeToString())
    assert dropout.take_out(bare.graph).applied == 5
    assert "Dropout" not in operators(bare.graph)
    np.testing.assert_array_equal(answer(bare, PIXELS), answer(conversion_.model.proto, PIXELS))


def test_a_batch_norm_is_not_folded_past_it(keras):
    """What is dropped between them would not be."""

    def between(x, layers):
        return layers.BatchNormalization(name="norm")(layers.Dropout(0.5, name="drop")(x))

    found, _ = convert(keras, between)
    graph = Graph(found.model.proto.graph)
    [node] = [node for node in found.model.proto.graph.node if node.op_type == "Dropout"]
    assert graph.producers[node.input[0]].op_type == "Conv"
    assert graph.consumers[node.output[0]][0].op_type in ("Mul", "BatchNormalization")
    assert found.rewritten["batch norm folded"] == 0


def test_an_int8_model_has_none(several):
    model = several[0].model
    quantized = quantization.quantize(model.proto, model.metadata.preprocessing, [PIXELS], "minmax")
    assert "Dropout" not in operators(quantized.graph)


def test_what_else_acts_in_training_only_is_noted(keras):
    def body(x, layers):
        x = layers.RandomFlip("horizontal", name="flip")(layers.GaussianNoise(0.1, name="noise")(x))
        return layers.Conv2D(2, 3, kernel_regularizer="l2")(x)

    found, _ = convert(keras, body)
    noise, penalty = found.notes
    assert noise.startswith("noise (GaussianNoise), flip (RandomFlip): what it does in Keras' training alone")
    assert penalty.startswith("the layers' regularizers do nothing here")


ACTING = {
    "all layers": (["*"], {"maps", "photos", "left", "right", "last"}),
    "the head": (["head"], {"last"}),
    "the last two": (["hidden", "head"], {"photos", "left", "right", "last"}),
    "the first only": (["first"], {"maps", "photos", "left", "right", "last"}),
    "one in the middle": (["inside"], {"maps", "photos", "left", "right", "last"}),
}


@pytest.mark.parametrize("case", ACTING)
def test_it_acts_where_no_frozen_layer_follows(several, case):
    patterns, expected = ACTING[case]
    model = several[0].model
    names = [layer.name for layer in model.metadata.layers]
    network = Network(model, names if patterns == ["*"] else patterns)
    assert {each.node.split("/")[0] for each in network.dropouts} == expected
    part = network.divide(network.boundaries()[0])
    assert part.dropouts == network.dropouts
    assert operators(part.trainable.graph).count("Dropout") == len(expected)
    if part.backbone is not None:
        backbone = onnx.load_model_from_string(part.backbone)
        assert "Dropout" not in operators(backbone.graph)


def test_features_are_those_in_front_of_it(several):
    """After it they would be different each time."""
    network = Network(several[0].model, ["head"])
    [tensor] = network.boundaries()[0].tensors
    node = next(node for node in network.proto.graph.node if node.name == "last/Dropout")
    assert tensor == node.input[0]
    part = network.divide(network.boundaries()[0])
    features = answer(onnx.load_model_from_string(part.backbone), PIXELS)
    np.testing.assert_allclose(
        answer(part.trainable, features), answer(several[0].model.proto, PIXELS), rtol=0, atol=1e-6
    )


def test_masks_are_inputs_of_the_graph_that_is_trained(several):
    network = Network(several[0].model, ["hidden", "head"])
    part = network.divide(network.boundaries()[-1])
    masked = dropout.masked(part.trainable, part.dropouts)
    inputs = {value.name: value for value in masked.graph.input}
    assert inputs.keys() == {INPUT, *(dropout.mask_of(each) for each in part.dropouts)}
    assert "Dropout" not in operators(masked.graph)
    assert "Dropout" in operators(part.trainable.graph), "that is what is evaluated"


class TestZeros:
    """What adds 0 is in the graph all the same: it can be trained."""

    def test_of_biases_and_batch_norms(self, keras):
        def body(x, layers):
            x = layers.BatchNormalization(name="alone")(layers.MaxPooling2D()(layers.ReLU()(x)))
            x = layers.Conv2D(4, 3, use_bias=False, name="bare")(x)
            x = layers.Conv2D(4, 3, use_bias=False, name="normed")(layers.ReLU()(x))
            return layers.DepthwiseConv2D(2, name="deep")(layers.BatchNormalization()(x))

        found, _ = convert(keras, body)
        constants = Graph(found.model.proto.graph)
        for layer, filters in {"first": 6, "normed": 4, "deep": 4, "head": 3}.items():
            np.testing.assert_array_equal(constants.constant(f"{layer}/bias"), np.zeros(filters))
        assert "bare/bias" not in constants.constants
        [add] = [node for node in found.model.proto.graph.node if node.name.startswith("alone/Add")]
        np.testing.assert_array_equal(np.ravel(constants.constant(add.input[1])), np.zeros(6))

    def test_flatten_reads_no_shape(self, keras):
        found, _ = convert(keras, lambda x, layers: layers.MaxPooling2D()(x))
        assert not {"Shape", "Gather", "Slice"}.intersection(operators(found.model.proto.graph))
        network = Network(found.model, found.model.metadata.trainable)
        assert list(network.weights) == ["first/kernel", "first/bias", "head/kernel", "head/bias"]
