"""The seam to the runtime's gradient builder."""

import ast
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import birdsonnx
from birdsonnx.runtime.gradient_builder import is_installed, with_gradients
from birdsonnx.runtime.sessions import Session
from tests.conftest import needs_training_runtime


def test_a_runtime_without_a_builder_is_recognized(monkeypatch):
    bare = types.ModuleType("onnxruntime.capi._pybind_state")
    monkeypatch.setitem(sys.modules, "onnxruntime.capi._pybind_state", bare)
    assert not is_installed()


@needs_training_runtime
def test_the_gradient_of_a_scalar_product():
    """`loss = sum(x * w)`: the gradient by `w` is `x`."""
    vectors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xw"]
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["loss"], keepdims=0),
    ]
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "product", vectors, [loss])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = Session(with_gradients(model.SerializeToString(), "loss", ["w"]))
    x, w = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    found = session.run({"x": x, "w": w})
    np.testing.assert_array_equal(found["w_grad"], x)
    assert found["loss"] == 32


@pytest.mark.parametrize("path", sorted((Path(birdsonnx.__file__).parent / "training").glob("*.py")))
def test_training_reaches_the_runtime_through_the_seam_alone(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    assert "onnxruntime" not in {name.split(".")[0] for name in names}
