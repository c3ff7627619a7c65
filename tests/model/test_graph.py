"""Questions to a graph."""

import numpy as np
from onnx import helper

from birdsonnx.model import graph as graphs
from birdsonnx.model.graph import Graph
from tests.graphs import diamond

node = helper.make_node


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


def test_what_depends_on_a_tensor():
    graph = diamond().graph
    assert graphs.depending_on(graph, ["b"]) == {"b", "y"}
    assert graphs.depending_on(graph, ["k", "idle"]) == {"k", "idle", "y"}
    assert graphs.depending_on(graph, ["x"]) == {"x", "a", "b", "c", "idle", "y"}
