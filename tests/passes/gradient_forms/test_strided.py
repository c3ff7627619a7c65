"""Values that strides leave out, left out first: the same answers."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from birdsonnx.passes.gradient_forms.strided import StrideBeforePointwise
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def strided(*strides: Sequence[int], **attributes: Any) -> ModelProto:
    """1 x 1 convolutions of one tensor, added up where there are two."""
    convs = [
        node("Conv", ["x", f"w{number}"], [f"c{number}"], kernel_shape=[1, 1], strides=each, **attributes)
        for number, each in enumerate(strides)
    ]
    outputs = [conv.output[0] for conv in convs]
    return graph_of(
        [*convs, node("Sum", outputs, ["y"])],
        {f"w{number}": random(5, 4, 1, 1, seed=number) for number in range(len(strides))},
        ["batch", 4, 7, 8],
        ["batch", 5, None, None],
    )


@pytest.mark.parametrize("strides", [(2, 2), (3, 1), (1, 2), (2, 3)])
def test_stride_before_pointwise(strides):
    model, value = strided(strides), random(2, 4, 7, 8, seed=8)
    before = answer(model, value)
    assert apply(StrideBeforePointwise(), model.graph).applied == 1
    assert operators(model.graph) == ["Slice", "Conv", "Sum"]
    np.testing.assert_allclose(answer(model, value), before, **CLOSE)


def test_convolutions_of_one_tensor_share_what_they_take_of_it():
    model, value = strided((2, 2), (2, 2)), random(2, 4, 7, 8, seed=8)
    before = answer(model, value)
    assert apply(StrideBeforePointwise(), model.graph).applied == 2
    assert operators(model.graph) == ["Slice", "Conv", "Conv", "Sum"]
    np.testing.assert_allclose(answer(model, value), before, **CLOSE)


def test_convolutions_with_other_strides_take_another_part():
    model = strided((2, 2), (2, 1))
    model.graph.node[-1].CopyFrom(node("GlobalAveragePool", ["c1"], ["g"]))
    model.graph.node.append(node("Add", ["c0", "g"], ["y"]))
    value = random(2, 4, 7, 8, seed=8)
    before = answer(model, value)
    assert apply(StrideBeforePointwise(), model.graph).applied == 2
    assert operators(model.graph).count("Slice") == 2
    np.testing.assert_allclose(answer(model, value), before, **CLOSE)


@pytest.mark.parametrize(
    "model",
    [
        strided((1, 1)),
        strided((2, 2), pads=[1, 1, 1, 1]),
        strided((2, 2), auto_pad="SAME_UPPER"),
        graph_of(
            [node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], strides=[2, 2])],
            {"w": random(5, 4, 3, 3)},
            ["batch", 4, 7, 8],
            ["batch", 5, 3, 3],
        ),
    ],
    ids=["no strides", "padded", "pads itself", "3 x 3"],
)
def test_stride_before_pointwise_leaves_alone(model):
    before = copy.deepcopy(model)
    assert apply(StrideBeforePointwise(), model.graph).applied == 0
    assert model == before
