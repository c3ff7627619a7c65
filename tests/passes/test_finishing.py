"""What the last pass keeps, and what it refuses."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.errors import ModelError
from birdsonnx.passes.finishing import finish
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node


def test_finish_refuses_operators_that_onnx_does_not_have():
    model = graph_of([node("StatefulPartitionedCall", ["x"], ["y"])], {}, ["batch", 4], ["batch", 4])
    with pytest.raises(ModelError, match="needs StatefulPartitionedCall, which ONNX does not have"):
        finish(model)


def test_finish_keeps_only_what_is_needed():
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["unused"])]
    model = graph_of(nodes, {"idle": random(3)}, ["batch", 4], ["batch", 4])
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    before = answer(model, random(2, 4))
    finish(model)
    np.testing.assert_array_equal(answer(model, random(2, 4)), before)
    assert operators(model.graph) == ["Relu"]
    assert not model.graph.initializer
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version <= 10


def test_finish_refuses_foreign_operators():
    model = graph_of([node("Gelu", ["x"], ["y"], domain="com.microsoft")], {}, ["b", 4], ["b", 4])
    with pytest.raises(ModelError, match=r"com\.microsoft"):
        finish(model)
