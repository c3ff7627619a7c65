"""The output `known` against its formula in plain NumPy."""

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model import model_file
from birdsonnx.model.after_change import without_fitted
from birdsonnx.model.edits import copy_of
from birdsonnx.model.graph import depending_on
from birdsonnx.model.known_part import own_nodes, without_known
from birdsonnx.model.metadata import INPUT, KNOWN, OUTPUT
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.known_output import Weights, answering_directions, features_of, with_known
from birdsonnx.passes.temperature import divide_scores
from birdsonnx.runtime.sessions import Session
from tests.tiny import FEATURES, SIZE, photos, tiny_model

RECORD = {"score": "s", "threshold": 0.5, "kept": 0.9, "photos": 7}
WEIGHTS = Weights(0.7, 30.0, -20.0)


def answers(model: BirdModel, images: np.ndarray) -> dict[str, np.ndarray]:
    return Session(model.serialized()).run({INPUT: images})


def tensor(model: BirdModel, name: str, images: np.ndarray) -> np.ndarray:
    proto = without_known(model.proto)
    proto.graph.output.add(name=name)
    return Session(proto.SerializeToString()).run({INPUT: images})[name]


def means(classes: int = 3, features: int = FEATURES) -> np.ndarray:
    found = np.abs(np.random.default_rng(3).normal(size=(classes, features)))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def known_by_hand(features: np.ndarray, log_probs: np.ndarray, weights: Weights = WEIGHTS) -> list[float]:
    found = []
    for x, scores in zip(features.astype(np.float64), log_probs.astype(np.float64), strict=True):
        root = np.array([np.sign(value) * abs(value) ** 0.5 for value in x])
        length = (root @ root) ** 0.5 or 1.0
        cosines = [root @ mean / length for mean in means(features=len(x)).astype(np.float64)]
        found.append(weights.offset + weights.probability * scores.max() + weights.likeness * max(cosines))
    return found


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_it_is_the_formula_and_leaves_the_log_probabilities_bit_for_bit(opset):
    model, images = tiny_model(3), photos(9)
    if opset >= 18:  # there the axes of what the network itself reduces would be inputs; it reduces nothing
        model.proto.opset_import[0].version = opset
        model.proto.ir_version = 10
    model.proto.opset_import[0].version = opset
    given = with_known(model, means(), WEIGHTS, RECORD)
    found = answers(given, images)
    assert list(found) == [OUTPUT, KNOWN]
    assert found[KNOWN].shape == (9,)
    assert found[KNOWN].dtype == np.float32
    np.testing.assert_array_equal(found[OUTPUT], answers(model, images)[OUTPUT])
    np.testing.assert_allclose(
        found[KNOWN], known_by_hand(tensor(model, "s", images), found[OUTPUT]), rtol=1e-5, atol=1e-5
    )
    assert model_file.parse(given.serialized(), "x").metadata.known == RECORD
    assert len(model.proto.graph.output) == 1  # the given model stays


def test_a_temperature_changes_the_log_probabilities_and_not_known():
    images = photos(9)
    given = with_known(tiny_model(3), means(), WEIGHTS, RECORD)
    hotter = BirdModel(copy_of(given.proto), given.metadata, "x")
    assert "dense/kernel" in divide_scores(hotter.proto, 2.5)
    before, after = answers(given, images), answers(hotter, images)
    assert np.abs(before[OUTPUT] - after[OUTPUT]).max() > 0.01
    np.testing.assert_array_equal(before[KNOWN], after[KNOWN])


def test_an_earlier_one_goes_and_without_it_the_graph_is_as_before():
    model = tiny_model(3)
    once = with_known(model, means(), WEIGHTS, RECORD)
    twice = with_known(once, means(), WEIGHTS, RECORD)
    assert once.serialized() == twice.serialized()
    assert without_known(once.proto) == model.proto
    said: list[str] = []
    left = without_fitted(once, "since it is trained", said.append)
    assert left.metadata.known is None
    assert left.proto == model.proto
    assert "'known'" in said[0]


def test_its_nodes_are_those_that_log_probs_does_without():
    model = with_known(tiny_model(3), means(), WEIGHTS, RECORD)
    own = own_nodes(model.proto.graph)
    assert all(name.startswith("known") for node in own for name in node.output)
    assert len(own) == len(model.proto.graph.node) - len(tiny_model(3).proto.graph.node)
    assert {KNOWN, OUTPUT} <= depending_on(model.proto.graph, [INPUT])


def test_a_map_before_the_last_layer_is_averaged():
    """As in networks whose last layer is a 1x1 convolution before the average."""
    model, images = tiny_model(3), photos(5)
    graph = model.proto.graph
    nodes: dict[str, NodeProto] = {node.op_type: node for node in graph.node if node.op_type != "Conv"}
    kernel = next(tensor for tensor in graph.initializer if tensor.name == "dense/kernel")
    values = np.frombuffer(kernel.raw_data, np.float32).reshape(FEATURES, 3).T
    del kernel.dims[:]
    kernel.dims.extend([3, FEATURES, 1, 1])
    kernel.raw_data = np.ascontiguousarray(values).tobytes()
    head = helper.make_node("Conv", ["r2", "dense/kernel", "dense/bias"], ["c3"], "dense/Conv")
    nodes["GlobalAveragePool"].input[0] = "c3"
    nodes["Squeeze"].output[0] = "logits"
    graph.node.remove(nodes["Gemm"])
    graph.node.insert([node.name for node in graph.node].index("pool"), head)
    found = features_of(model.proto)
    assert found is not None
    assert found.tensor == "r2"
    assert found.shape[0] == FEATURES
    assert found.shape[1] > 1
    features = tensor(model, "r2", images).mean(axis=(2, 3))
    given = answers(with_known(model, means(), WEIGHTS, RECORD), images)
    np.testing.assert_allclose(given[KNOWN], known_by_hand(features, given[OUTPUT]), rtol=1e-4, atol=1e-4)


def test_without_a_last_linear_layer_it_is_the_largest_log_probability():
    model, images = tiny_model(3), photos(5)
    [gemm] = [node for node in model.proto.graph.node if node.op_type == "Gemm"]
    twice = helper.make_node("Add", ["logits", "mixed"], ["sum"], "sum")
    model.proto.graph.node.insert(len(model.proto.graph.node) - 1, twice)
    mixed = helper.make_node("Mul", [gemm.output[0], gemm.output[0]], ["mixed"], "mixed")
    model.proto.graph.node.insert(len(model.proto.graph.node) - 2, mixed)
    model.proto.graph.node[-1].input[0] = "sum"
    assert features_of(model.proto) is None
    assert answering_directions(model) is None
    given = with_known(model, None, Weights(2.0, 0.0, 1.0), RECORD)
    found = answers(given, images)
    np.testing.assert_allclose(found[KNOWN], 1 + 2 * found[OUTPUT].max(axis=1), rtol=1e-6)
    hotter = BirdModel(copy_of(given.proto), given.metadata, "x")
    divide_scores(hotter.proto, 2.5)
    again = answers(hotter, images)
    assert np.abs(again[OUTPUT] - found[OUTPUT]).max() > 0.01
    np.testing.assert_allclose(again[KNOWN], found[KNOWN], rtol=1e-6)


def test_directions_have_length_1_and_of_nothing_0():
    model = tiny_model(3)
    directions = answering_directions(with_known(model, means(), WEIGHTS, RECORD))
    assert directions is not None
    images = photos(6)
    found = answers(directions, images)[OUTPUT]
    features = tensor(model, "s", images)
    assert found.shape == (6, FEATURES)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found**2, features / features.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)
    for tensor_ in model.proto.graph.initializer:  # dead: every feature is 0
        if tensor_.name in ("conv2/kernel", "conv2/bias"):
            tensor_.raw_data = bytes(len(tensor_.raw_data))
    dead = answering_directions(model)
    assert dead is not None
    assert not answers(dead, images)[OUTPUT].any()
    assert np.isfinite(answers(with_known(model, means(), WEIGHTS, RECORD), images)[KNOWN]).all()


def test_names_that_the_network_has_are_left_alone():
    model = tiny_model(3)
    for node in model.proto.graph.node:
        node.input[:] = ["known/means" if name == "dense/bias" else name for name in node.input]
    for constant in model.proto.graph.initializer:
        constant.name = "known/means" if constant.name == "dense/bias" else constant.name
    images = photos(4)
    found = answers(with_known(model, means(), WEIGHTS, RECORD), images)
    np.testing.assert_array_equal(found[OUTPUT], answers(tiny_model(3), images)[OUTPUT])
    for node in model.proto.graph.node:
        node.input[:] = [KNOWN if name == "s" else name for name in node.input]
        node.output[:] = [KNOWN if name == "s" else name for name in node.output]
    with pytest.raises(ModelError, match="calls one of its own tensors 'known'"):
        with_known(model, means(), WEIGHTS, RECORD)


def test_the_contract_knows_it():
    given = with_known(tiny_model(3), means(), WEIGHTS, RECORD)
    [_, value] = given.proto.graph.output
    assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert given.input_size == (SIZE, SIZE, 3)
    assert given.num_classes == 3
