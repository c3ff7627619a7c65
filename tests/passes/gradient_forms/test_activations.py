"""Activations written out."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.passes.gradient_forms.activations import ActivationsAsArithmetic
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("name", ["Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "HardSwish"])
def test_activations_keep_their_values(name):
    model = graph_of([node(name, ["x"], ["y"], f"act/{name}")], {}, ["batch", 3, 4, 4], ["batch", 3, 4, 4])
    values = np.concatenate(
        [random(1, 3, 4, 4), 1000 * random(1, 3, 4, 4), np.zeros((1, 3, 4, 4), np.float32)]
    )
    before = answer(model, values)
    assert apply(ActivationsAsArithmetic({"x"}), model.graph).applied == 1
    assert name not in operators(model.graph)
    np.testing.assert_allclose(answer(model, values), before, rtol=1e-6, atol=1e-6)
