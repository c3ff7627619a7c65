"""The split in front of the head: both halves together are the network."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from birdsonnx.errors import ConfigError
from birdsonnx.network.head import split, trainable_layers, with_weights
from birdsonnx.network.model_file import BirdModel
from tests.network.graphs import answer
from tests.network.networks import two_dense
from tests.tiny import FEATURES, tiny_model

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("model", "trainable"),
    [
        (tiny_model(), ["dense"]),
        (two_dense(), ["dense"]),
        (two_dense(), ["hidden", "dense"]),
        (two_dense(), ["hidden"]),
    ],
    ids=["dense", "last of two", "both", "first of two"],
)
def test_backbone_and_head_are_the_network(model, trainable):
    parts = split(model, trainable)
    assert list(parts.weights) == [f"{layer}/{role}" for layer in trainable for role in ("kernel", "bias")]
    assert parts.feature_size == FEATURES
    features = answer(onnx.load_model_from_string(parts.backbone), PIXELS)
    assert features.shape == (3, FEATURES)
    session = onnxruntime.InferenceSession(parts.head.SerializeToString())
    [found] = session.run(None, {"features": features})
    # The same kernels on the same values; fusions across the cut may differ in the last bits.
    np.testing.assert_allclose(found, answer(model.proto, PIXELS), rtol=1e-5, atol=1e-6)


def test_the_backbone_depends_on_its_own_weights_only():
    model = tiny_model()
    other_head = with_weights(model, {"dense/bias": np.ones(3, np.float32)})
    assert split(other_head, ["dense"]).backbone == split(model, ["dense"]).backbone
    assert split(tiny_model(seed=1), ["dense"]).backbone != split(model, ["dense"]).backbone


def test_with_weights_changes_these_weights_and_nothing_else():
    model, untouched = tiny_model(), tiny_model()
    new = {"dense/bias": np.arange(3, dtype=np.float32)}
    changed = with_weights(model, new)
    assert model.proto == untouched.proto
    assert changed.metadata == model.metadata
    assert changed.proto.graph.node == model.proto.graph.node
    for before, after in zip(model.proto.graph.initializer, changed.proto.graph.initializer, strict=True):
        assert (before == after) == (before.name != "dense/bias")
    np.testing.assert_array_equal(split(changed, ["dense"]).weights["dense/bias"], new["dense/bias"])


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, ("dense",)),
        (["dense"], ("dense",)),
        (["d*"], ("dense",)),
        (["dense", "conv?"], ("conv1", "conv2", "dense")),
        (["*"], ("conv1", "conv2", "dense")),
    ],
)
def test_trainable_layers(patterns, names):
    assert trainable_layers(tiny_model().metadata, patterns) == names


@pytest.mark.parametrize("patterns", [["dens_"], ["dense", "dens_"]])
def test_a_pattern_that_matches_nothing_is_refused(patterns):
    with pytest.raises(ConfigError, match=r"'dens_' matches no layer.*did you mean 'dense'"):
        trainable_layers(tiny_model().metadata, patterns)


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="nothing to train"):
        split(tiny_model(), [])


def test_more_than_the_head_is_refused_by_name():
    with pytest.raises(ConfigError, match=r'^tiny: conv1, conv2 cannot be trained.*"trainable": \["dense"\]'):
        split(tiny_model(), ["conv1", "conv2", "dense"])


def dense_in_front_of_a_sigmoid():
    """`hidden` and its Relu, and then a Sigmoid, which the head cannot hold."""
    model = two_dense()
    graph = model.proto.graph
    at = next(index for index, node in enumerate(graph.node) if node.name == "dense/Gemm")
    graph.node[at].input[0] = "gate"
    graph.node.insert(at, helper.make_node("Sigmoid", ["hr"], ["gate"], "gate/Sigmoid"))
    return BirdModel(model.proto, model.metadata, "gated")


def test_what_follows_a_trained_dense_must_be_trainable_too():
    model = dense_in_front_of_a_sigmoid()
    assert split(model, ["dense"]).feature_size == FEATURES
    with pytest.raises(ConfigError, match="gated: gate/Sigmoid cannot be trained"):
        split(model, ["hidden", "dense"])
