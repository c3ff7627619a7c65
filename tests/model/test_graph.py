"""Questions to a graph, and the edits that the rewrites are made of."""

import numpy as np
from onnx import helper, numpy_helper

from birdsonnx.model import graph as graphs
from birdsonnx.model.graph import Graph
from tests.graphs import answer, graph_of, operators

node = helper.make_node


def diamond():
    """`x` - Relu - `a`, read by Neg and Abs, whose sum is `y`; and a Sqrt that nothing needs."""
    return graph_of(
        [
            node("Relu", ["x"], ["a"]),
            node("Neg", ["a"], ["b"]),
            node("Abs", ["a"], ["c"]),
            node("Sqrt", ["c"], ["idle"]),
            node("Sum", ["b", "c", "k"], ["y"]),
        ],
        {"k": np.ones(4, np.float32), "unused": np.zeros(2, np.float32)},
        ["batch", 4],
        ["batch", 4],
    )


def test_producers_consumers_and_constants():
    graph = Graph(diamond().graph)
    assert graph.producers["a"].op_type == "Relu"
    assert [reader.op_type for reader in graph.consumers["a"]] == ["Neg", "Abs"]
    np.testing.assert_array_equal(graph.constant("k"), np.ones(4))
    assert graph.constant("a") is None


def test_only_consumer():
    proto = diamond().graph
    proto.node.append(node("Exp", ["y"], ["more"]))
    graph = Graph(proto)
    assert graph.only_consumer("b").op_type == "Sum"
    assert graph.only_consumer("a") is None, "two readers"
    assert graph.only_consumer("y") is None, "a reader, and an output"
    assert graph.only_consumer("more") is None, "no reader"


def test_attribute():
    leaky = node("LeakyRelu", ["x"], ["y"], alpha=0.5)
    assert graphs.attribute(leaky, "alpha") == 0.5
    assert graphs.attribute(leaky, "beta", "none") == "none"


def test_set_constant_adds_or_replaces():
    proto = diamond().graph
    graphs.set_constant(proto, "k", np.full(4, 2, np.float32))
    graphs.set_constant(proto, "new", np.arange(3).T)
    values = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in proto.initializer}
    assert values == {"k": [2] * 4, "unused": [0, 0], "new": [0, 1, 2]}


def test_redirect_reaches_every_reader():
    model = diamond()
    graphs.redirect(model.graph, "a", "x")
    value = np.array([[-3, -1, 0, 2]], np.float32)
    np.testing.assert_array_equal(answer(model, value), np.abs(value) - value + 1)


def test_drop_unused_keeps_what_the_output_needs():
    model = diamond()
    value = np.array([[-3, -1, 0, 2]], np.float32)
    before = answer(model, value)
    graphs.drop_unused(model.graph)
    assert operators(model.graph) == ["Relu", "Neg", "Abs", "Sum"]
    assert [tensor.name for tensor in model.graph.initializer] == ["k"]
    np.testing.assert_array_equal(answer(model, value), before)
