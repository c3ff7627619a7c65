"""AveragePool as a convolution."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from birdsonnx.errors import ConfigError
from birdsonnx.model.graph import shapes_per_photo
from birdsonnx.passes.gradient_forms.average_pool import AveragePoolAsConvolution
from birdsonnx.passes.gradient_forms.preparing import prepare
from birdsonnx.passes.rewriting import apply
from tests.graphs import answer, operators, random
from tests.passes.gradient_forms.networks import averaged

node = helper.make_node
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize(
    "model",
    [
        averaged(),
        averaged(strides=[2, 2]),
        averaged((2, 3), strides=[1, 3]),
        averaged(pads=[0, 0, 0, 0]),
        averaged(pads=[1, 0, 1, 2], count_include_pad=1, strides=[2, 2]),
        averaged(auto_pad="VALID"),
        averaged(pads=[1, 1, 1, 1]),
        averaged((3, 3), pads=[0, 1, 2, 1], strides=[2, 1]),
        averaged((3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
        averaged((2, 3), auto_pad="SAME_LOWER", strides=[2, 1]),
    ],
    ids=[
        *("plain", "strides", "oblong", "pads of 0", "pads that count", "valid"),
        *("pads", "uneven pads", "pads itself", "pads itself below"),
    ],
)
def test_average_pool_as_convolution(model):
    value = random(2, 4, 7, 6, seed=8)
    before = answer(model, value)
    prepare(model, {"w": None}, ["conv", "mean"], "net")
    assert operators(model.graph)[:3] == ["Conv", "Relu", "Conv"]
    np.testing.assert_allclose(answer(model, value), before, **CLOSE)


def test_average_pool_after_a_concatenation():
    model = averaged()
    model.graph.node[1].CopyFrom(node("Concat", ["c", "x"], ["r"], "join/Concat", axis=1))
    model.graph.node.insert(0, node("Conv", ["photo", "v"], ["x"], kernel_shape=[1, 1]))
    model.graph.input[0].name = "photo"
    model.graph.initializer.append(numpy_helper.from_array(random(4, 4, 1, 1, seed=1), "v"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    value = random(2, 4, 7, 6, seed=8)
    before = answer(model, value)
    assert apply(AveragePoolAsConvolution({"w", "c", "r"}, shapes_per_photo(model)), model.graph).applied == 1
    np.testing.assert_allclose(answer(model, value), before, **CLOSE)


def test_an_average_pool_that_looks_beyond_the_edge_is_refused():
    model = averaged(ceil_mode=1, strides=[2, 2])
    with pytest.raises(ConfigError, match=r"^net: layer 'mean' is a AveragePool, which has no gradient"):
        prepare(model, {"w": None}, ["conv", "mean"], "net")
