"""BatchNormalization as a product and a sum."""

import numpy as np
from onnx import ModelProto, helper

from birdsonnx.passes.gradient_forms.batch_norm import BatchNormAsAffine
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer, graph_of, operators, random
from tests.passes.gradient_forms.networks import NORM

node = helper.make_node
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def two_norms() -> ModelProto:
    """One after the convolution and one, of the same statistics, on the photos."""
    return graph_of(
        [
            node("BatchNormalization", ["x", *NORM], ["n"], "frozen_bn/BatchNormalization"),
            node("Conv", ["n", "w"], ["c"], "conv/Conv", kernel_shape=[3, 3]),
            node("BatchNormalization", ["c", *NORM], ["y"], "bn/BatchNormalization", epsilon=1e-3),
        ],
        {"w": random(5, 5, 3, 3), **NORM},
        ["batch", 5, 6, 6],
        ["batch", 5, 4, 4],
    )


def test_batch_norm_as_affine():
    model, value = two_norms(), random(2, 5, 6, 6)
    before = answer(model, value)
    assert apply(BatchNormAsAffine({"w", "c", "y"}, {}), model.graph).applied == 1
    assert operators(model.graph) == ["BatchNormalization", "Conv", "Mul", "Add"]
    np.testing.assert_allclose(answer(model, value), before, **CLOSE)
