"""The preprocessing in the graph against the formulas of Keras."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.uint8_input import take_uint8
from tests.graphs import answer, graph_of, operators

node = helper.make_node


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FORMULAS = {  # float64, on RGB
    "caffe": lambda rgb: rgb[..., ::-1] - [103.939, 116.779, 123.68],
    "torch": lambda rgb: (rgb / 255 - IMAGENET[0]) / IMAGENET[1],
    "tf": lambda rgb: rgb / 127.5 - 1,
    "unit": lambda rgb: rgb / 255,
    "none": lambda rgb: rgb,
}


def network_of_pixels(channels=3):
    """Gives its NCHW input back."""
    shape = ["batch", channels, 4, 6]
    return graph_of([node("Identity", ["x"], ["y"])], {}, shape, shape)


@pytest.mark.parametrize("mode", FORMULAS)
def test_take_uint8(mode):
    model = network_of_pixels()
    take_uint8(model.graph, of_mode(mode, 3))
    [image] = model.graph.input
    assert (image.name, image.type.tensor_type.elem_type) == ("images", TensorProto.UINT8)
    assert [dim.dim_value or dim.dim_param for dim in image.type.tensor_type.shape.dim] == ["batch", 4, 6, 3]
    expected = FORMULAS[mode](PIXELS.astype(np.float64)).transpose(0, 3, 1, 2)
    # Products of values up to 255 with float32 constants.
    np.testing.assert_allclose(answer(model, PIXELS), expected, rtol=1e-6, atol=1e-5)


def test_take_uint8_of_one_channel():
    model = network_of_pixels(channels=1)
    take_uint8(model.graph, of_mode("tf", 1))
    expected = (PIXELS[..., :1] / 127.5 - 1).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(answer(model, PIXELS[..., :1]), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("first", FORMULAS)
@pytest.mark.parametrize("second", ["caffe", "unit", "none"])
def test_take_uint8_replaces_an_older_preprocessing(first, second):
    twice, once = network_of_pixels(), network_of_pixels()
    take_uint8(twice.graph, of_mode(first, 3))
    for model in (twice, once):
        take_uint8(model.graph, of_mode(second, 3))
    assert operators(twice.graph) == operators(once.graph)
    np.testing.assert_array_equal(answer(twice, PIXELS), answer(once, PIXELS))
