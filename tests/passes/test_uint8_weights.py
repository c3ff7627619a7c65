"""The forms of an int8 model with uint8 weights against the form that is written."""

import copy

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, helper

from birdsonnx.model.graph import Graph
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.quantization import quantize
from birdsonnx.passes.uint8_input import take_uint8
from birdsonnx.passes.uint8_weights import NOT_SYMMETRIC, SHARED, exact_sums, sums_on_amx
from birdsonnx.runtime import isa
from tests.graphs import answer, graph_of
from tests.tiny import SIZE, photos, residual_model, tiny_model

node = helper.make_node


@pytest.fixture(scope="module")
def wide() -> ModelProto:
    """int8, with sums of 36 products, 576, 16, 256 of one pixel and 288 of nine."""
    generator = np.random.default_rng(0)
    shapes = {
        "w1": (64, 3, 3, 3),
        "w2": (16, 64, 3, 3),
        "w3": (256, 16, 1, 1),
        "w4": (32, 256, 1, 1),
        "w5": (8, 32, 3, 3),
    }
    constants = {
        name: generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], "one", strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], "two", pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"], "three"),
        node("Relu", ["c3"], ["r3"]),
        node("Conv", ["r3", "w4"], ["c4"], "four"),
        node("Relu", ["c4"], ["r4"]),
        node("Conv", ["r4", "w5"], ["c5"], "five", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c5"], ["y"]),
    ]
    model = graph_of(nodes, constants, ["batch", 3, SIZE, SIZE], ["batch", 8, 1, 1])
    take_uint8(model.graph, of_mode("torch", 3))
    return quantize(model, of_mode("torch", 3), iter([photos(16)]), "minmax")


def weights_of(model: ModelProto) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and zero points of each convolution."""
    graph = Graph(model.graph)
    inputs = [graph.producers[item.input[1]].input for item in model.graph.node if item.op_type == "Conv"]
    return [(graph.constant(names[0]), graph.constant(names[2])) for names in inputs]


def on_amx(model: ModelProto) -> ModelProto:
    moved = copy.deepcopy(model)
    sums_on_amx(moved)
    return moved


def test_only_long_sums_go_to_amx(wide):
    assert sums_on_amx(copy.deepcopy(wide)).applied == 2
    before, after = weights_of(wide), weights_of(on_amx(wide))
    assert [weights.dtype.name for weights, _ in after] == ["int8", "uint8", "int8", "uint8", "int8"]
    for (weights, zero), (moved, middle) in zip(before, after, strict=True):
        assert moved.dtype == middle.dtype
        assert zero.shape == middle.shape
        by_channel = (slice(None), None, None, None)
        np.testing.assert_array_equal(
            moved.astype(int) - middle[by_channel], weights.astype(int) - zero[by_channel]
        )


@pytest.mark.skipif(not isa.has_int8_products(), reason="without VNNI, int8 products saturate in pairs")
def test_amx_gives_the_same_bits(wide):
    moved = on_amx(wide)
    for count in (1, 5):
        np.testing.assert_array_equal(
            answer(moved, photos(count, seed=4)), answer(wide, photos(count, seed=4))
        )


def test_weights_that_several_read_stay(wide):
    shared = copy.deepcopy(wide)
    graph = Graph(shared.graph)
    long = graph.producers[[item for item in shared.graph.node if item.op_type == "Conv"][1].input[1]]
    shared.graph.node.append(node("Identity", [long.input[0]], ["also"]))
    found = weights_of(on_amx(shared))
    assert [weights.dtype.name for weights, _ in found] == ["int8", "int8", "int8", "uint8", "int8"]
    report = sums_on_amx(copy.deepcopy(shared))
    assert (report.applied, report.declined) == (1, {SHARED: 1})


def test_weights_that_are_uint8_already_stay(wide):
    moved = on_amx(wide)
    report = sums_on_amx(moved)
    assert (report.applied, report.declined) == (0, {NOT_SYMMETRIC: 2})
    assert moved == on_amx(wide)


def test_amx_leaves_float32_and_short_sums_alone():
    model = tiny_model()
    int8 = quantize(model.proto, model.metadata.preprocessing, iter([photos(16)]), "minmax")
    for proto in (int8, model.proto):
        assert on_amx(proto) == proto


def by_plain_arithmetic(model: ModelProto, pixels: np.ndarray) -> np.ndarray:
    """Each node on its own, in float32: what the file says, whatever the CPU's int8 kernels do."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    [values] = session.run(None, {"images": pixels})
    return values


@pytest.mark.parametrize("make", [tiny_model, residual_model])
def test_without_vnni_every_layer_is_summed_exactly(make):
    model = make()
    int8 = quantize(model.proto, model.metadata.preprocessing, iter([photos(16)]), "minmax")
    exact = copy.deepcopy(int8)
    report = exact_sums(exact)
    assert report.applied == sum(item.op_type in ("Conv", "Gemm") for item in int8.graph.node)
    assert all(weights.dtype == np.uint8 for weights, _ in weights_of(exact))
    pixels = photos(40, seed=2)
    np.testing.assert_allclose(answer(exact, pixels), by_plain_arithmetic(int8, pixels), atol=1e-5)
