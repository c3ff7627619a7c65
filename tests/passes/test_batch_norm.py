"""Folded batch norms: the same answers, and the graphs that must be left alone."""

import copy

import numpy as np
import pytest
from onnx import helper

from birdsonnx.passes import batch_norm
from birdsonnx.passes.batch_norm import FoldBatchNorm
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
# Rewrites reorder float32 sums; the values here are of the order of 1 to 10.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def conv_then(nodes, constants, bias=True):
    names = ["x", "w", *(["b"] if bias else [])]
    return graph_of(
        [node("Conv", names, ["c"], "conv", kernel_shape=[3, 3]), *nodes],
        {"w": random(5, 4, 3, 3), **({"b": random(5, seed=1)} if bias else {}), **constants},
        ["batch", 4, 8, 8],
        ["batch", 5, 6, 6],
    )


NORM = {
    "gamma": random(5, seed=2) + 2,
    "beta": random(5, seed=3),
    "mean": random(5, seed=4),
    "variance": random(5, seed=5) ** 2 + 0.1,
}
BATCH_NORM = [node("BatchNormalization", ["c", *NORM], ["y"], epsilon=1e-3)]
MAPS = ["batch", 4, 3, 3]
NORM_OF_4 = {name: value[:4] for name, value in NORM.items()}
BATCH_NORM_OF_4 = [node("BatchNormalization", ["c", *NORM], ["y"])]
MUL_ADD = [node("Mul", ["c", "s"], ["m"]), node("Add", ["m", "t"], ["y"])]
AFFINE = {"s": random(1, 5, 1, 1, seed=6), "t": random(5, 1, 1, seed=7)}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("nodes", "constants", "folded"),
    [(BATCH_NORM, NORM, 1), (MUL_ADD, AFFINE, 2)],
    ids=["BatchNormalization", "Mul and Add"],
)
def test_fold_batch_norm(nodes, constants, folded, bias):
    model = conv_then(nodes, constants, bias)
    before = answer(model, random(2, 4, 8, 8, seed=8))
    assert apply(FoldBatchNorm(), model.graph).applied == folded
    assert operators(model.graph) == ["Conv"]
    np.testing.assert_allclose(answer(model, random(2, 4, 8, 8, seed=8)), before, **CLOSE)


@pytest.mark.parametrize(
    ("nodes", "reasons"),
    [
        ([node("Add", ["c", "row"], ["y"])], []),
        ([node("Add", ["c", "c"], ["y"])], []),
        ([node("Relu", ["c"], ["r"]), node("Mul", ["r", "s"], ["y"])], []),
        (
            [node("Relu", ["c"], ["r"]), node("BatchNormalization", ["r", *NORM], ["y"])],
            [batch_norm.NO_CONVOLUTION],
        ),
        (
            [node("Mul", ["c", "s"], ["m"]), node("Add", ["m", "c"], ["y"])],
            [batch_norm.READ_ELSEWHERE],
        ),
        (
            [node("Shape", ["c"], ["n"]), node("Expand", ["s", "n"], ["e"]), node("Mul", ["c", "e"], ["y"])],
            [],
        ),
        (
            [
                node("Abs", ["variance"], ["computed"]),
                node("BatchNormalization", ["c", "gamma", "beta", "mean", "computed"], ["y"]),
            ],
            [batch_norm.NOT_CONSTANT],
        ),
    ],
    ids=[
        *("along the width", "itself", "a product after a Relu", "after a Relu", "two readers"),
        *("not constant", "no statistics"),
    ],
)
def test_fold_batch_norm_leaves_alone(nodes, reasons):
    """What is no batch norm of a convolution is not reported either."""
    model = conv_then(nodes, {"row": random(6), "s": random(1, 5, 1, 1), **NORM})
    before = copy.deepcopy(model)
    report = apply(FoldBatchNorm(), model.graph)
    assert (report.applied, report.declined) == (0, dict.fromkeys(reasons, 1))
    assert model == before


def test_fold_batch_norm_tells_channels_from_a_width_of_the_same_size():
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "row"], ["y"])]
    shape = ["batch", 5, 3, 5]
    model = graph_of(nodes, {"w": random(5, 5, 1, 1), "row": random(1, 1, 1, 5)}, shape, shape)
    assert apply(FoldBatchNorm(), model.graph).applied == 0


def test_fold_batch_norm_of_a_grouped_convolution():
    nodes = [node("Conv", ["x", "w"], ["c"], group=4), *BATCH_NORM_OF_4]
    model = graph_of(nodes, {"w": random(4, 1, 1, 1), **NORM_OF_4}, ["batch", 4, 3, 3], ["batch", 4, 3, 3])
    before = answer(model, random(2, 4, 3, 3))
    assert apply(FoldBatchNorm(), model.graph).applied == 1
    np.testing.assert_allclose(answer(model, random(2, 4, 3, 3)), before, **CLOSE)


def test_fold_batch_norm_leaves_a_convolution_that_is_called_twice():
    """Its one kernel cannot take up the norms of both calls."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c1"], "one"),
        node("BatchNormalization", ["c1", *NORM], ["n1"]),
        node("Conv", ["x", "w", "b"], ["c2"], "two"),
        node("Sum", ["n1", "c2"], ["y"]),
    ]
    constants = {"w": random(5, 4, 1, 1), "b": random(5, seed=1), **NORM}
    model = graph_of(nodes, constants, ["batch", 4, 3, 3], ["batch", 5, 3, 3])
    before = copy.deepcopy(model)
    report = apply(FoldBatchNorm(), model.graph)
    assert (report.applied, report.declined) == (0, {batch_norm.CALLED_TWICE: 1})
    assert model == before


def test_many_batch_norms_are_folded_in_one_go():
    """One after the other, in parallel branches, and a Mul and Add after a BatchNormalization."""
    nodes = [
        node("Conv", ["x", "w0"], ["c0"]),
        node("BatchNormalization", ["c0", *NORM_OF_4], ["n0"]),
        node("Mul", ["n0", "s"], ["m0"]),
        node("Relu", ["m0"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c1"]),
        node("Conv", ["r0", "w2"], ["c2"]),
        node("BatchNormalization", ["c2", *NORM_OF_4], ["n2"]),
        node("BatchNormalization", ["c1", *NORM_OF_4], ["n1"]),
        node("Add", ["n1", "n2"], ["y"]),
    ]
    kernels = {f"w{number}": random(4, 4, 1, 1, seed=number) for number in range(3)}
    model = graph_of(nodes, {**kernels, "s": random(4, 1, 1), **NORM_OF_4}, MAPS, MAPS)
    before = answer(model, random(2, 4, 3, 3))
    assert apply(FoldBatchNorm(), model.graph).applied == 4
    assert operators(model.graph) == ["Conv", "Relu", "Conv", "Conv", "Add"]
    np.testing.assert_allclose(answer(model, random(2, 4, 3, 3)), before, **CLOSE)
