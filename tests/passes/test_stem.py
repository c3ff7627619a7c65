"""The first convolution over blocks of pixels: the same answers as after the preprocessing."""

import copy

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from birdsonnx.model.edits import drop_unused, set_inputs, set_nodes
from birdsonnx.model.graph import Graph
from birdsonnx.model.preprocessing import MODES, Preprocessing, of_mode
from birdsonnx.passes import stem
from birdsonnx.passes.uint8_input import PREPROCESS, take_uint8
from tests.graphs import answer, graph_of, operators

node = helper.make_node
HEIGHT, WIDTH = 24, 36
FILTERS = 5
ROUNDING = 1e-6
"""Of the largest sum of products of an output: float32 has 6e-8, and the sums have another order."""


def network(kernel, mode, bias=True, size=(HEIGHT, WIDTH), nodes=None, **options) -> ModelProto:
    """One convolution of random weights after a preprocessing; `kernel` is `(height, width)`."""
    generator = np.random.default_rng(0)
    channels = options.pop("channels", 3)
    fan_in = channels // options.get("group", 1)
    constants = {"w": generator.normal(size=(options.pop("filters", FILTERS), fan_in, *kernel))}
    if bias:
        constants["b"] = generator.normal(size=len(constants["w"]))
    nodes = nodes or [node("Conv", ["x", *constants], ["y"], "conv", **options)]
    model = graph_of(
        nodes,
        {name: value.astype(np.float32) for name, value in constants.items()},
        ["batch", channels, *size],
        ["batch", len(constants["w"]), None, None],
    )
    take_uint8(model.graph, of_mode(mode, channels))
    return model


def photos(count: int, channels: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, channels), np.uint8)


def require_same(model: ModelProto, preprocessing: Preprocessing) -> None:
    """Fold, and compare photos, one alone and three together."""
    folded = copy.deepcopy(model)
    assert stem.fold_preprocessing_into_stem(folded.graph, preprocessing).applied == 1
    assert operators(folded.graph)[-2:] == ["Cast", "Conv"]
    assert not any(item.name.startswith(PREPROCESS) for item in folded.graph.node)
    assert folded.graph.input == model.graph.input
    assert folded.graph.output == model.graph.output
    [kernel] = [value for value in model.graph.initializer if value.name == "w"]
    products = kernel.dims[1] * kernel.dims[2] * kernel.dims[3]
    largest = 255 * max(map(abs, preprocessing.scale)) + max(map(abs, preprocessing.offset))
    for count in (1, 3):
        pixels = photos(count, len(preprocessing.scale))
        expected, found = answer(model, pixels), answer(folded, pixels)
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * products * largest)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("taps", range(1, 8))
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (3, 3, 3, 3), (0, 1, 2, 5), (6, 0, 1, 3)], ids=str)
def test_it_gives_the_same_answers(taps, stride, pads):
    """Kernels, strides and (top, left, bottom, right) pads, even those wider than the kernel."""
    model = network((taps, taps), "caffe", strides=[stride] * 2, pads=pads)
    require_same(model, of_mode("caffe", 3))


@pytest.mark.parametrize(
    ("mode", "channels"), [*((mode, 3) for mode in MODES), ("tf", 1), ("unit", 1), ("none", 1)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_preprocessing(mode, channels, stride):
    """Padded: what lies outside the photo is 0 after the preprocessing, not before it."""
    model = network((5, 3), mode, channels=channels, strides=[stride] * 2, pads=[2, 1, 2, 1])
    require_same(model, of_mode(mode, channels))


@pytest.mark.parametrize("options", [{"bias": False}, {"auto_pad": "VALID"}, {"kernel_shape": [7, 2]}, {}])
def test_ways_to_write_a_convolution(options):
    require_same(network((7, 2), "torch", **{"strides": [2, 2], **options}), of_mode("torch", 3))


def test_another_reader_of_its_weights_keeps_them():
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], "one", pads=[1, 1, 1, 1]),
        node("Conv", ["c", "w", "b"], ["y"], "two"),
    ]
    model = network((3, 3), "unit", filters=3, nodes=nodes)
    folded = copy.deepcopy(model)
    assert stem.fold_preprocessing_into_stem(folded.graph, of_mode("unit", 3)).applied == 1
    expected = answer(model, photos(2))
    np.testing.assert_allclose(answer(folded, photos(2)), expected, atol=1e-5 * np.abs(expected).max())


def test_resnet50_has_16_channels_and_4_x_4_taps():
    model = network((7, 7), "caffe", strides=[2, 2], pads=[3, 3, 3, 3])
    stem.fold_preprocessing_into_stem(model.graph, of_mode("caffe", 3))
    [conv] = [item for item in model.graph.node if item.op_type == "Conv"]
    assert Graph(model.graph).constant(conv.input[1]).shape == (FILTERS, 16, 4, 4)


def branched() -> ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], "conv"),
        node("GlobalMaxPool", ["x"], ["g"]),
        node("ReduceMax", ["g"], ["m"], keepdims=0),
        node("Add", ["c", "m"], ["y"]),
    ]
    return network((3, 3), "caffe", nodes=nodes)


def kernel_computed() -> ModelProto:
    nodes = [node("Abs", ["w"], ["a"]), node("Conv", ["x", "a", "b"], ["y"], "conv", kernel_shape=[3, 3])]
    return network((3, 3), "caffe", nodes=nodes)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (network((3, 3), "caffe", filters=6, group=3), stem.NOT_PLAIN),
        (network((3, 3), "caffe", dilations=[2, 2]), stem.NOT_PLAIN),
        (network((3, 3), "caffe", strides=[5, 5]), stem.UNEVEN),
        (network((3, 3), "caffe", strides=[4, 4], size=(24, 34)), stem.UNEVEN),
        (network((3, 3), "caffe", strides=[4, 4], size=(34, 24)), stem.UNEVEN),
        (network((3, 3), "caffe", strides=[1, 2]), stem.UNEVEN),
        (network((3, 3), "caffe", auto_pad="SAME_UPPER"), stem.NOT_PLAIN),
        (
            network(
                (3, 3), "caffe", nodes=[node("Relu", ["x"], ["r"]), node("Conv", ["r", "w", "b"], ["y"])]
            ),
            stem.NO_CONVOLUTION,
        ),
        (branched(), stem.SEVERAL_READERS),
        (kernel_computed(), stem.NOT_PLAIN),
    ],
    ids=[
        "groups",
        "dilation",
        "stride that divides neither side",
        "nor the width",
        "nor the height",
        "two strides",
        "pads by itself",
        "begins with a Relu",
        "two readers",
        "kernel not constant",
    ],
)
def test_it_leaves_alone(model, reason):
    before = copy.deepcopy(model)
    report = stem.fold_preprocessing_into_stem(model.graph, of_mode("caffe", 3))
    assert (report.applied, report.declined) == (0, {reason: 1})
    assert model == before


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("mode", "channels"), [("caffe", 3), ("torch", 3), ("tf", 1), ("unit", 3)])
def test_mean_pixels_are_what_the_network_sees_as_0(mode, channels, stride):
    """With every pixel the mean one, all that comes out of the convolution is its bias."""
    model = network((5, 5), mode, channels=channels, strides=[stride] * 2)
    stem.fold_preprocessing_into_stem(model.graph, of_mode(mode, channels))
    [conv] = [item for item in model.graph.node if item.op_type == "Conv"]
    blocks = Graph(model.graph).constant(conv.input[1]).shape[1]
    mean = stem.mean_pixels(of_mode(mode, channels), blocks)
    assert mean.shape == (blocks,)
    shape = ["batch", blocks, 8, 8]
    set_inputs(model.graph, [helper.make_tensor_value_info(stem.PIXELS, TensorProto.FLOAT, shape)])
    set_nodes(model.graph, [item for item in model.graph.node if item.op_type == "Conv"])
    drop_unused(model.graph)
    value = np.broadcast_to(mean.astype(np.float32).reshape(1, -1, 1, 1), (1, blocks, 8, 8))
    found = answer(model, np.ascontiguousarray(value))
    bias = Graph(model.graph).constant("b").reshape(1, -1, 1, 1)
    largest = 2 if mode == "tf" else 5 if mode == "torch" else 255
    np.testing.assert_allclose(found - bias, 0 * found, rtol=0, atol=ROUNDING * 25 * channels * largest)


def test_mean_pixels_refuse_what_are_no_blocks():
    with pytest.raises(ValueError, match="17 channels are no blocks of 3-channel pixels"):
        stem.mean_pixels(of_mode("caffe", 3), 17)
