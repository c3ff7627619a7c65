"""Small maps side by side: the same numbers, photo by photo, and what must stay as it is."""

import copy

import numpy as np
import pytest
from onnx import ModelProto, helper

from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.quantization import quantize
from birdsonnx.passes.side_by_side import WIDEST, lay_side_by_side
from birdsonnx.passes.uint8_input import take_uint8
from birdsonnx.runtime import isa
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
ORDER_OF_SUMS = 2e-6
"""float32 sums of 144 products of about 1 in another order, relative to values of about 10."""


KERNELS = {
    "a": random(16, 8, 1, 1, seed=1) / 3,
    "b": random(16, 16, 3, 3, seed=2) / 12,
    "c": random(8, 16, 3, 1, seed=3) / 7,
    "deep": random(16, 1, 5, 5, seed=4) / 5,
    "bias": random(16, seed=5),
    "most": np.array(3, np.float32),
    "scale": random(8, 1, 1, seed=6),
}


def conv(source: str, kernel: str, target: str, pads=(0, 0, 0, 0), **more):
    size = list(KERNELS[kernel].shape[2:])
    names = [source, kernel, "bias"] if len(KERNELS[kernel]) == 16 else [source, kernel]
    return node("Conv", names, [target], target, kernel_shape=size, pads=list(pads), **more)


BLOCK = [
    conv("x", "a", "squeezed"),
    node("Relu", ["squeezed"], ["r1"]),
    conv("r1", "b", "wide", (1, 1, 1, 1)),
    node("Clip", ["wide", "", "most"], ["clipped"]),
    conv("clipped", "deep", "deep_out", (4, 3, 4, 5), group=16, dilations=[2, 2]),
    node("Add", ["deep_out", "r1"], ["sum"]),
    conv("sum", "c", "tall", (1, 0, 1, 0)),
    node("Mul", ["tall", "scale"], ["scaled"]),
    node("Add", ["scaled", "x"], ["end"]),
]
"""Kernels of every kind: wide, tall, one per channel, dilated, with padding that differs on each side."""
TOP = [node("GlobalAveragePool", ["end"], ["y"])]


def model(nodes, output=(8, 1, 1), size=(5, 7)) -> ModelProto:
    used = {name: value for name, value in KERNELS.items() if any(name in each.input for each in nodes)}
    return graph_of(nodes, used, ["batch", 8, *size], ["batch", *output])


def laid(network: ModelProto, photos: int) -> tuple[ModelProto, int]:
    """A copy with its maps side by side, and how many convolutions those are."""
    moved = copy.deepcopy(network)
    return moved, lay_side_by_side(moved, photos).applied


@pytest.mark.parametrize("photos", [2, 3, 8])
def test_equal_in_value(photos):
    network = model([*BLOCK, *TOP])
    moved, count = laid(network, photos)
    images = random(photos, 8, 5, 7, seed=9)
    assert count == 4
    np.testing.assert_allclose(answer(moved, images), answer(network, images), atol=ORDER_OF_SUMS)


def test_a_photo_does_not_see_its_neighbours():
    moved, _ = laid(model([*BLOCK, *TOP]), 3)
    images = random(3, 8, 5, 7, seed=9)
    others = images.copy()
    others[[0, 2]] *= -100
    np.testing.assert_array_equal(answer(moved, images)[1], answer(moved, others)[1])


def test_runs_take_exactly_so_many_photos():
    moved, _ = laid(model([*BLOCK, *TOP]), 3)
    for value in (moved.graph.input[0], moved.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_value == 3


def test_maps_are_moved_twice_however_many_read_them():
    """In for `x`, which the first convolution and the last sum read; out for the end, also read twice."""
    top = [node("GlobalMaxPool", ["end"], ["most_"]), node("GlobalAveragePool", ["end"], ["mean"])]
    moved, _ = laid(model([*BLOCK, *top, node("Add", ["most_", "mean"], ["y"])]), 2)
    assert operators(moved.graph).count("Reshape") == 2


def test_what_reads_from_inside_in_the_middle_gets_its_photos_apart():
    """As squeeze-and-excitation does: a mean per photo, multiplied back onto the map."""
    gate = [
        node("GlobalAveragePool", ["sum"], ["means"]),
        node("Sigmoid", ["means"], ["gate"]),
        node("Mul", ["sum", "gate"], ["gated"]),
    ]
    gated = [*BLOCK[:6], *gate, conv("gated", "c", "tall", (1, 0, 1, 0)), *BLOCK[7:], *TOP]
    network = model(gated)
    moved, count = laid(network, 4)
    images = random(4, 8, 5, 7, seed=9)
    assert count == 3
    np.testing.assert_allclose(answer(moved, images), answer(network, images), atol=ORDER_OF_SUMS)


WIDE = [conv("x", "a", "squeezed"), conv("squeezed", "b", "b1", (1, 1, 1, 1))]


@pytest.mark.parametrize(
    ("nodes", "output", "size"),
    [
        ([*BLOCK, *TOP], (8, 1, 1), (5, WIDEST + 1)),  # rows that fill the kernels by themselves
        ([*WIDE, node("GlobalAveragePool", ["b1"], ["y"])], (16, 1, 1), (5, 7)),  # one wide convolution only
        (
            [
                conv("x", "a", "squeezed"),
                conv("squeezed", "b", "b1", (1, 1, 1, 1), strides=[2, 2]),
                conv("b1", "b", "b2", (1, 1, 1, 1), strides=[2, 2]),
                node("GlobalAveragePool", ["b2"], ["y"]),
            ],
            (16, 1, 1),
            (7, 7),
        ),  # columns that are left out
    ],
)
def test_what_gains_nothing_stays(nodes, output, size):
    network = model(nodes, output, size)
    moved, count = laid(network, 4)
    assert count == 0
    assert moved == network


def test_an_output_of_the_network_stays_apart():
    network = model(
        [*WIDE, conv("b1", "b", "b2", (1, 1, 1, 1)), conv("b2", "b", "y", (1, 1, 1, 1))], (16, 5, 7)
    )
    moved, count = laid(network, 2)
    images = random(2, 8, 5, 7, seed=9)
    assert count == 3
    np.testing.assert_allclose(answer(moved, images), answer(network, images), atol=ORDER_OF_SUMS)


def test_rows_that_are_no_photos_stay():
    """Windows of the photos as a batch of their own: as many rows as photos would be chance."""
    windows = [
        node("Reshape", ["x", "shape"], ["cut"]),
        conv("cut", "a", "squeezed"),
        conv("squeezed", "b", "b1", (1, 1, 1, 1)),
        conv("b1", "b", "b2", (1, 1, 1, 1)),
        node("GlobalAveragePool", ["b2"], ["means"]),
        node("Reshape", ["means", "back"], ["y"]),
    ]
    shapes = {"shape": np.array([-1, 8, 5, 7]), "back": np.array([-1, 32])}
    used = {name: KERNELS[name] for name in ("a", "b", "bias")}
    network = graph_of(windows, {**used, **shapes}, ["batch", 16, 5, 7], ["batch", 32])
    assert laid(network, 4) == (network, 0)


@pytest.fixture(scope="module")
def int8() -> ModelProto:
    first = node("Conv", ["x", "stem"], ["s"], "s", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    body = [
        node("Relu", ["s"], ["large"]),
        node("MaxPool", ["large"], ["start"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("start", "a", "squeezed"),
        node("Relu", ["squeezed"], ["r1"]),
        conv("r1", "b", "b1", (1, 1, 1, 1)),
        node("Relu", ["b1"], ["r2"]),
        conv("r2", "b", "b2", (1, 1, 1, 1)),
        conv("start", "a", "shortcut"),
        node("Add", ["b2", "shortcut"], ["sum"]),
        node("Relu", ["sum"], ["end"]),
    ]
    heads = [node("GlobalAveragePool", [name], [f"{name}_mean"]) for name in ("end", "start")]
    constants = {name: KERNELS[name] for name in ("a", "b", "bias")} | {
        "stem": random(8, 3, 3, 3, seed=8) / 5
    }
    top = node("Concat", ["end_mean", "start_mean"], ["y"], axis=1)
    model = graph_of([first, *body, *heads, top], constants, ["batch", 3, 28, 28], ["batch", 24, 1, 1])
    take_uint8(model.graph, of_mode("torch", 3))
    return quantize(model, of_mode("torch", 3), iter([photos(16)]), "minmax")


def photos(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 3), np.uint8)


@pytest.mark.skipif(not isa.has_int8_products(), reason="without VNNI, int8 products saturate in pairs")
@pytest.mark.parametrize("count", [2, 5])
def test_int8_gives_the_same_bits(int8, count):
    moved, convolutions = laid(int8, count)
    assert convolutions == 4
    pixels = photos(count, seed=4)
    np.testing.assert_array_equal(answer(moved, pixels), answer(int8, pixels))


def test_int8_maps_are_moved_as_bytes(int8):
    """Of what lies inside, nothing but bytes is moved: float32 maps would end the fused int8 operations."""
    moved, _ = laid(int8, 2)
    makers = {name: each.op_type for each in moved.graph.node for name in each.output}
    from_side_to_side = [each for each in moved.graph.node if each.name.endswith(("/columns", "/split"))]
    assert [makers[each.input[0]] for each in from_side_to_side] == ["QuantizeLinear"] * 2
