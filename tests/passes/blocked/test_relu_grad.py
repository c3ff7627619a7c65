"""The mask against the runtime's ReluGrad, to the bit."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from birdsonnx.passes.blocked.relu_grad import ReluGradAsMask
from birdsonnx.passes.rewriting import apply
from tests.conftest import needs_training_runtime
from tests.graphs import outputs_of

EDGES = np.array([-0.0, 0.0, -1, 1, 2, -1.2e-38, 1.2e-38, -3.4e38, 3.4e38, np.inf, -np.inf], np.float32)


def relu_gradient(of: str) -> ModelProto:
    """`dx` from `dy`, with the activation `y` or what it was computed from, `x`, as the other operand."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["y"]),
            helper.make_node("ReluGrad", ["dy", of], ["dx"], domain="com.microsoft"),
            helper.make_node("ReluGrad", ["dz", of], ["dv"], domain="com.microsoft"),
        ],
        "test",
        [value(name, TensorProto.FLOAT, ["n"]) for name in ("x", "dy", "dz")],
        [value(name, TensorProto.FLOAT, ["n"]) for name in ("y", "dx", "dv")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@needs_training_runtime
@pytest.mark.parametrize(("of", "own"), [("y", True), ("x", True), ("x", False)])
def test_relu_grad_as_mask_is_exact(of, own):
    model = relu_gradient(of)
    if not own:  # the activation is not in the graph
        del model.graph.node[0], model.graph.output[0]
    generator = np.random.default_rng(0)
    feeds = {name: generator.normal(size=len(EDGES)).astype(np.float32) for name in ("dy", "dz")}
    feeds["x"] = EDGES
    expected = outputs_of(model, feeds)
    np.testing.assert_array_equal(expected["dx"], np.where(EDGES > 0, feeds["dy"], 0))  # the oracle's oracle
    shapes = dict.fromkeys(("x", "y", "dy", "dz", "dx", "dv"), (len(EDGES),))
    assert apply(ReluGradAsMask(shapes), model.graph).applied == 2
    operations = [node.op_type for node in model.graph.node]
    assert operations == [*(["Relu"] if own else []), "HardSigmoid", "Mul", "Mul"]  # one mask for both
    # Of the activation, where there is one: its input can then be forgotten.
    assert model.graph.node[-2].input[1] == ("y/mask" if own else "x/mask")
    assert shapes[model.graph.node[-2].input[1]] == (len(EDGES),)
    found = outputs_of(model, feeds)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
