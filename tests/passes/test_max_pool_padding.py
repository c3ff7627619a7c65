"""A pad given to the pool: the same bits, and the graphs that must be left alone."""

import copy

import numpy as np
import pytest
from onnx import helper

from birdsonnx.passes import max_pool_padding
from birdsonnx.passes.max_pool_padding import PadIntoMaxPool
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node


def pad_and_pool(first="Relu", amounts=(0, 0, 1, 1, 0, 0, 1, 1), value=0.0, mode="constant", **pool):
    return graph_of(
        [
            node(first, ["x"], ["a"]),
            node("Pad", ["a", "amounts", "value"], ["p"], mode=mode),
            node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2], **pool),
        ],
        {"amounts": np.array(amounts, np.int64), "value": np.float32(value)},
        ["batch", 2, 8, 8],
        ["batch", 2, None, None],
    )


def pad_read_twice():
    model = pad_and_pool()
    model.graph.node.append(node("GlobalMaxPool", ["p"], ["g"]))
    model.graph.node.append(node("Add", ["pooled", "g"], ["y"]))
    model.graph.node[2].output[0] = "pooled"
    return model


def test_zero_padding_would_win_over_negative_values():
    """Why the rewrite asks for a Relu: without one the two paddings differ."""
    zero, own = pad_and_pool(first="Neg"), pad_and_pool(first="Neg", amounts=[0] * 8, pads=[1, 1, 1, 1])
    value = np.abs(random(1, 2, 8, 8))
    assert (answer(zero, value) - answer(own, value)).max() > 0.01


@pytest.mark.parametrize(
    "amounts", [(0, 0, 1, 1, 0, 0, 1, 1), (0, 0, 0, 0, 0, 0, 1, 1), (0, 0, 2, 1, 0, 0, 0, 2)]
)
def test_pad_into_max_pool(amounts):
    model = pad_and_pool(amounts=amounts)
    value = random(3, 2, 8, 8) - 1  # mostly zeros after the Relu: the padding would show
    before = answer(model, value)
    assert apply(PadIntoMaxPool(), model.graph).applied == 1
    assert operators(model.graph) == ["Relu", "MaxPool"]
    np.testing.assert_array_equal(answer(model, value), before)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (pad_and_pool(first="Neg"), max_pool_padding.NEGATIVE_VALUES),
        (pad_and_pool(value=1.0), max_pool_padding.NOT_ZEROS),
        (pad_and_pool(amounts=(0, 0, 3, 3, 0, 0, 0, 0)), max_pool_padding.TOO_WIDE),
        (pad_and_pool(amounts=(0, 1, 1, 1, 0, 0, 1, 1)), max_pool_padding.OTHER_AXES),
        (pad_and_pool(amounts=(0, 0, -1, -1, 0, 0, 1, 1)), max_pool_padding.OTHER_AXES),
        (pad_and_pool(pads=[1, 1, 1, 1]), max_pool_padding.POOL_PADS),
        (pad_and_pool(auto_pad="SAME_UPPER"), max_pool_padding.POOL_PADS),
        (pad_and_pool(mode="reflect"), max_pool_padding.NOT_ZEROS),
        (pad_read_twice(), max_pool_padding.READ_ELSEWHERE),
    ],
    ids=[
        "a zero pad would win over negative values",
        "not zero",
        "windows wholly in the padding",
        "a channel is added",
        "rows are cut off",
        "pool pads too",
        "pool pads by itself",
        "reflected",
        "two readers",
    ],
)
def test_pad_into_max_pool_leaves_alone(model, reason):
    before = copy.deepcopy(model)
    report = apply(PadIntoMaxPool(), model.graph)
    assert (report.applied, report.declined) == (0, {reason: 1})
    assert model == before
