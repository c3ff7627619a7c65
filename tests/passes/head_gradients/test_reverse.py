"""Graphs of gradients that we build ourselves, as wholes; each operation has its cases in
`tests/passes/gradient_forms/test_preparing.py`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from birdsonnx.model.edits import copy_of, make_inputs
from birdsonnx.passes.head_gradients.reverse import last_unknown
from birdsonnx.passes.head_gradients.rules import RULES
from birdsonnx.runtime import gradient_builder
from birdsonnx.runtime.sessions import Session
from birdsonnx.training.session_kernels import gradient_graph
from tests.conftest import needs_training_runtime
from tests.graphs import random

node = helper.make_node


def model_of(nodes: Sequence[NodeProto], constants: dict[str, Any], row: Sequence[int]) -> ModelProto:
    """From `x`, float32 `[batch, *row]`, to a scalar `loss`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *row])],
        [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def gradients(model: ModelProto, weights: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    graph = gradient_graph(model, list(weights))
    return Session(graph.SerializeToString()).run({"x": x, **weights})


def differences(model: ModelProto, weights: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Central differences in float64, by onnx's reference evaluator."""
    wide = copy_of(model)
    for tensor in wide.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float64), tensor.name))
    make_inputs(wide.graph, weights)
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    evaluator = ReferenceEvaluator(wide)
    values = {name: value.astype(np.float64) for name, value in {"x": x, **weights}.items()}
    step = 1e-6
    found = {name: np.zeros(value.shape) for name, value in weights.items()}
    for name, result in found.items():
        for index in np.ndindex(result.shape):
            for sign in (1, -1):
                nudged = values[name].copy()
                nudged[index] += sign * step
                result[index] += sign * evaluator.run(None, {**values, name: nudged})[0] / (2 * step)
    return found


# --- Right values, however many photos ------------------------------------------------------------------

ATTENTION = [
    node("MatMul", ["x", "query"], ["q"]),
    node("MatMul", ["x", "key"], ["k"]),
    node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
    node("MatMul", ["q", "kt"], ["scores"]),
    node("Softmax", ["scores"], ["shares"], axis=-1),
    node("MatMul", ["shares", "x"], ["read"]),
    node("Split", ["read", "halves"], ["left", "right"], axis=2),
    node("Concat", ["right", "x", "left"], ["joined"], axis=2),
    node("Mul", ["joined", "scale"], ["scaled"]),
    node("Add", ["scaled", "shift"], ["shifted"]),
    node("Tanh", ["shifted"], ["bounded"]),
    node("ReduceMean", ["bounded"], ["centre"], axes=[0, 1], keepdims=1),  # over the photos as well
    node("Sub", ["bounded", "centre"], ["centred"]),
    node("Mul", ["centred", "centred"], ["squares"]),
    node("ReduceSum", ["squares"], ["loss"], keepdims=0),
]
WEIGHTS = {
    "query": random(4, 3, seed=1),
    "key": random(4, 3, seed=2),
    "scale": random(8, seed=3),
    "shift": random(1, 1, 8, seed=4),
}


@pytest.mark.parametrize("photos", [1, 2, 5])
def test_whole_networks_against_finite_differences(photos):
    """Built for no number of photos: what the graph is built with must not remain in it."""
    model = model_of(ATTENTION, {**WEIGHTS, "halves": np.array([1, 3], np.int64)}, (5, 4))
    x = random(photos, 5, 4, seed=5)
    found, expected = gradients(model, WEIGHTS, x), differences(model, WEIGHTS, x)
    for name, value in expected.items():
        assert found[f"{name}_grad"].shape == value.shape
        np.testing.assert_allclose(
            found[f"{name}_grad"], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(), err_msg=name
        )


def test_every_node_is_one_of_the_standard():
    model = model_of(ATTENTION, {**WEIGHTS, "halves": np.array([1, 3], np.int64)}, (5, 4))
    graph = gradient_graph(model, list(WEIGHTS))
    assert {item.domain for item in graph.graph.node} == {""}
    onnx.checker.check_model(graph, full_check=True)


# --- Who reads what -------------------------------------------------------------------------------------


def test_a_gradient_that_several_read_is_given_to_each():
    """`loss = sum(x + first + second)`: both gradients are one tensor."""
    nodes = [
        node("Add", ["x", "first"], ["a"]),
        node("Add", ["a", "second"], ["b"]),
        node("ReduceSum", ["b"], ["loss"], keepdims=0),
    ]
    weights = {"first": random(2, 3), "second": random(2, 3, seed=1)}
    found = gradients(model_of(nodes, weights, (3,)), weights, random(2, 3, seed=2))
    for name in weights:
        np.testing.assert_array_equal(found[f"{name}_grad"], np.ones((2, 3)))


def test_a_weight_that_several_read_has_the_sum():
    nodes = [
        node("Mul", ["x", "w"], ["a"]),
        node("Exp", ["w"], ["e"]),
        node("Add", ["a", "e"], ["b"]),
        node("Mul", ["b", "w"], ["c"]),
        node("ReduceSum", ["c"], ["loss"], keepdims=0),
    ]
    weights, x = {"w": random(3)}, random(4, 3, seed=1)
    model = model_of(nodes, weights, (3,))
    np.testing.assert_allclose(
        gradients(model, weights, x)["w_grad"], differences(model, weights, x)["w"], rtol=1e-5
    )


def test_a_weight_that_the_loss_does_not_read_has_zeros():
    nodes = [
        node("Mul", ["x", "w"], ["a"]),
        node("Exp", ["idle"], ["unread"]),
        node("ReduceSum", ["a"], ["loss"], keepdims=0),
    ]
    weights = {"w": random(3), "idle": random(2, 2)}
    found = gradients(model_of(nodes, weights, (3,)), weights, random(4, 3, seed=1))
    np.testing.assert_array_equal(found["idle_grad"], np.zeros((2, 2)))


def test_only_what_comes_after_a_weight_must_be_known():
    before = [node("Conv", ["x", "k"], ["c"]), node("Flatten", ["c"], ["f"])]
    after = [node("MatMul", ["f", "w"], ["m"]), node("ReduceSum", ["m"], ["loss"], keepdims=0)]
    constants = {"k": random(2, 3, 2, 2), "w": random(2, 5)}
    model = model_of([*before, *after], constants, (3, 2, 2))
    assert last_unknown(model, ["w"]) is None
    unknown = last_unknown(model, ["k", "w"])
    assert unknown is not None
    assert unknown.op_type == "Conv"


@pytest.mark.parametrize(
    "item",
    [
        node("Concat", ["w", "x"], ["o"], axis=0),
        node("ReduceSum", ["w", "x"], ["o"]),
        node("ReduceMean", ["w", "x"], ["o"]),
    ],
    ids=lambda item: item.op_type,
)
def test_forms_that_depend_on_the_photos_are_unknown(item):
    assert item.op_type in RULES
    model = model_of([item], {"w": random(3, 3)}, (3,))
    unknown = last_unknown(model, ["w"])
    assert unknown is not None
    assert unknown.op_type == item.op_type


# --- The runtime's builder ------------------------------------------------------------------------------

AT_ITS_LIMITS = {
    "Abs": ([node("Abs", ["a"], ["o"])], {}),
    "Clip": ([node("Clip", ["a", "low", "high"], ["o"])], {"low": np.float32(-1), "high": np.float32(2)}),
    "LeakyRelu": ([node("LeakyRelu", ["a"], ["o"], alpha=0.1)], {}),
    "Max": ([node("Max", ["a", "k"], ["o"])], {"k": np.array([0, 0, 1, 2, -1], np.float32)}),
    "Min": ([node("Min", ["k", "a"], ["o"])], {"k": np.array([0, 0, 1, 2, -1], np.float32)}),
    "Relu": ([node("Relu", ["a"], ["o"])], {}),
}


@needs_training_runtime
@pytest.mark.parametrize(("nodes", "constants"), AT_ITS_LIMITS.values(), ids=AT_ITS_LIMITS)
def test_derivatives_jump_where_those_of_the_runtime_do(nodes, constants):
    """No finite difference can say what is right there."""
    weights = {"w": np.array([0, -0.0, 1, 2, -1], np.float32)}
    nodes = [
        node("Mul", ["x", "w"], ["a"]),
        *nodes,
        node("ReduceSum", ["o"], ["loss"], keepdims=0),
    ]
    model = model_of(nodes, {**weights, **constants}, (5,))
    x = np.array([[1, 1, 1, 1, 1], [3, 4, 5, 6, 7]], np.float32)
    found = gradients(model, weights, x)["w_grad"]
    make_inputs(model.graph, weights)
    by_the_runtime = gradient_builder.with_gradients(model.SerializeToString(), "loss", ["w"])
    np.testing.assert_array_equal(found, Session(by_the_runtime).run({"x": x, **weights})["w_grad"])
