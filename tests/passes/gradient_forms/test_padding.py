"""Padding as numbers: of what it is not, since the runtime would then compute something else."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.passes.gradient_forms.padding import AFTER_PAD, PadsAsGiven
from birdsonnx.passes.rewriting import apply
from tests.graphs import graph_of

node = helper.make_node


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_a_pooling_after_a_pad_computes_its_padding_still(pool):
    window = {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}
    model = graph_of(
        [node("Pad", ["x", "margins"], ["wide"]), node(pool, ["wide"], ["y"], **window)],
        {"margins": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["batch", 3, 9, 9],
        ["batch", 3, 11, 11],
    )
    before = model.SerializeToString()
    report = apply(PadsAsGiven({"wide": (3, 11, 11)}), model.graph)
    assert report.declined == {AFTER_PAD: 1}
    assert model.SerializeToString() == before
