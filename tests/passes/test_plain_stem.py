"""The stem of an int8 model over pixels: the same bits as over blocks of pixels."""

import copy

import numpy as np
import pytest
from onnx import ModelProto

from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes import plain_stem, uint8_weights
from birdsonnx.passes.plain_stem import pixels_for_blocks
from birdsonnx.passes.quantization import quantize
from tests.graphs import answer, operators
from tests.passes.test_stem import network, photos


def quantized(mode: str = "caffe", channels: int = 3, **options) -> ModelProto:
    model = network((5, 4), mode, channels=channels, **options)
    return quantize(model, of_mode(mode, channels), [photos(4, channels)], "minmax")


def exact(model: ModelProto, pixels: np.ndarray) -> np.ndarray:
    """The answer with sums that are exact on any CPU."""
    model = copy.deepcopy(model)
    uint8_weights.exact_sums(model)
    return answer(model, pixels)


@pytest.mark.parametrize(("mode", "channels"), [("caffe", 3), ("torch", 3), ("tf", 1), ("none", 3)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (2, 3, 2, 1), (5, 0, 1, 4)], ids=str)
def test_the_same_bits(mode, channels, stride, pads):
    model = quantized(mode, channels, strides=[stride] * 2, pads=pads)
    plain = copy.deepcopy(model)
    assert pixels_for_blocks(plain).applied == 1
    assert operators(plain.graph).count("Reshape") == 0
    for count in (1, 3):
        pixels = photos(count, channels)
        np.testing.assert_array_equal(exact(plain, pixels), exact(model, pixels))


def test_empty_taps_are_left_out():
    """A kernel of 5 x 4 with a stride of 2 has 6 x 6 in blocks; the columns carry the offset."""
    plain = quantized(strides=[2, 2], pads=[2, 1, 2, 1])
    pixels_for_blocks(plain)
    [kernel] = [each for each in plain.graph.initializer if each.name == f"{plain_stem.PLAIN}kernel"]
    assert list(kernel.dims[2:]) == [5, 6]


def test_a_float32_model_stays_as_it_is():
    model = network((3, 3), "caffe", strides=[2, 2])
    before = model.SerializeToString()
    assert pixels_for_blocks(model).applied == 0
    assert model.SerializeToString() == before


def test_weights_of_another_kind_are_left_alone():
    model = quantized(strides=[2, 2])
    uint8_weights.exact_sums(model)
    report = pixels_for_blocks(model)
    assert report.applied == 0
    assert report.declined == {plain_stem.NOT_INT8: 1}
