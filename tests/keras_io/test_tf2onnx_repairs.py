"""What tf2onnx leaves in a graph, put right: the same answers before and after."""

import copy
import math

import numpy as np
import pytest
from onnx import helper

from birdsonnx.keras_io.tf2onnx_road.tf2onnx_repairs import dense_as_gemm, dense_on_maps, erfc_as_erf
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
# Rewrites reorder float32 sums; the values here are of the order of 1 to 10.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("bias", [True, False])
def test_dense_as_gemm(bias):
    kernel, offset = random(4, 3), random(3, seed=1) if bias else np.zeros(3, np.float32)
    last = [node("MatMul", ["x", "net/dense_1/kernel"], ["m" if bias else "y"], "net/dense_1/MatMul")]
    if bias:
        last.append(node("Add", ["m", "offset"], ["y"]))
    constants = {"net/dense_1/kernel": kernel, **({"offset": offset} if bias else {})}
    model = graph_of(last, constants, ["batch", 4], ["batch", 3])
    before = answer(model, random(2, 4, seed=2))
    assert dense_as_gemm(model.graph, {"dense": (kernel, offset)}) == 1
    assert operators(model.graph) == ["Gemm"]
    assert list(model.graph.node[0].input) == ["x", "dense/kernel", "dense/bias"]
    np.testing.assert_allclose(answer(model, random(2, 4, seed=2)), before, **CLOSE)


@pytest.mark.parametrize(
    ("layer", "kernel"),
    [("dense", random(4, 3, seed=9)), ("other", random(4, 3)), ("dense", random(3, 4).reshape(4, 3) * 2)],
)
def test_dense_as_gemm_leaves_what_is_not_keras_own_weights(layer, kernel):
    model = graph_of([node("MatMul", ["x", "dense/w"], ["y"])], {"dense/w": random(4, 3)}, ["b", 4], ["b", 3])
    before = copy.deepcopy(model)
    assert dense_as_gemm(model.graph, {layer: (kernel, np.zeros(3, np.float32))}) == 0
    assert model == before


def test_dense_as_gemm_does_not_swallow_an_add_of_something_else():
    nodes = [node("MatMul", ["x", "dense/w"], ["m"]), node("Add", ["m", "k"], ["y"])]
    model = graph_of(nodes, {"dense/w": random(4, 3), "k": random(3, seed=1)}, ["b", 4], ["b", 3])
    before = answer(model, random(2, 4))
    assert dense_as_gemm(model.graph, {"dense": (random(4, 3), np.zeros(3, np.float32))}) == 1
    assert operators(model.graph) == ["Gemm", "Add"]
    np.testing.assert_allclose(answer(model, random(2, 4)), before, **CLOSE)


def test_erfc_as_erf():
    """Against Python's own erfc."""
    model = graph_of(
        [node("Erfc", ["x"], ["e"], "one"), node("Erfc", ["e"], ["y"], "two")], {}, ["batch", 9], ["batch", 9]
    )
    assert erfc_as_erf(model.graph) == 2
    values = np.linspace(-3, 3, 9, dtype=np.float32)[None]
    expected = [[math.erfc(math.erfc(value)) for value in values[0]]]
    np.testing.assert_allclose(answer(model, values), expected, rtol=0, atol=1e-6)


def flattened_dense(columns=3):
    """What tf2onnx makes of a Dense on a map: all positions flattened, and shaped back."""
    return graph_of(
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
            node("Reshape", ["t", "flat"], ["f"]),
            node("MatMul", ["f", "w"], ["m"]),
            node("Reshape", ["m", "back"], ["r"]),
            node("Add", ["r", "b"], ["y"]),
        ],
        {
            "flat": np.array([-1, 4], np.int64),
            "back": np.array([-1, 2, columns, 5], np.int64),
            "w": random(4, 5),
            "b": random(5, seed=1),
        },
        ["batch", 4, 2, 3],
        ["batch", 2, columns, 5],
    )


def test_dense_on_maps():
    model, value = flattened_dense(), random(2, 4, 2, 3, seed=2)
    before = answer(model, value)
    assert dense_on_maps(model) == 1
    assert operators(model.graph) == ["Transpose", "MatMul", "Add"]
    np.testing.assert_allclose(answer(model, value), before, rtol=1e-6, atol=1e-6)


def test_a_product_that_is_shaped_otherwise_stays():
    model = flattened_dense(columns=1)
    before = copy.deepcopy(model)
    assert dense_on_maps(model) == 0
    assert model == before
