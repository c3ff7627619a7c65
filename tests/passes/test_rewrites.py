"""Every rewrite: the same answers before and after, and the graphs that it must leave alone."""

import copy
import math

import numpy as np
import pytest
from onnx import TensorProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.tf2onnx_repairs import dense_as_gemm, dense_on_maps, erfc_as_erf
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.batch_norm import fold_batch_norm
from birdsonnx.passes.finishing import finish
from birdsonnx.passes.log_probs_output import end_in_log_probs
from birdsonnx.passes.max_pool_padding import pad_into_max_pool
from birdsonnx.passes.uint8_input import take_uint8
from tests.graphs import answer, graph_of, operators

node = helper.make_node
# Rewrites reorder float32 sums; the values here are of the order of 1 to 10.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv_then(nodes, constants, bias=True):
    names = ["x", "w", *(["b"] if bias else [])]
    return graph_of(
        [node("Conv", names, ["c"], "conv", kernel_shape=[3, 3]), *nodes],
        {"w": random(5, 4, 3, 3), **({"b": random(5, seed=1)} if bias else {}), **constants},
        ["batch", 4, 8, 8],
        ["batch", 5, 6, 6],
    )


NORM = {
    "gamma": random(5, seed=2) + 2,
    "beta": random(5, seed=3),
    "mean": random(5, seed=4),
    "variance": random(5, seed=5) ** 2 + 0.1,
}
BATCH_NORM = [node("BatchNormalization", ["c", *NORM], ["y"], epsilon=1e-3)]
NORM_OF_4 = {name: value[:4] for name, value in NORM.items()}
BATCH_NORM_OF_4 = [node("BatchNormalization", ["c", *NORM], ["y"])]
MUL_ADD = [node("Mul", ["c", "s"], ["m"]), node("Add", ["m", "t"], ["y"])]
AFFINE = {"s": random(1, 5, 1, 1, seed=6), "t": random(5, 1, 1, seed=7)}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("nodes", "constants", "folded"),
    [(BATCH_NORM, NORM, 1), (MUL_ADD, AFFINE, 2)],
    ids=["BatchNormalization", "Mul and Add"],
)
def test_fold_batch_norm(nodes, constants, folded, bias):
    model = conv_then(nodes, constants, bias)
    before = answer(model, random(2, 4, 8, 8, seed=8))
    assert fold_batch_norm(model.graph) == folded
    assert operators(model.graph) == ["Conv"]
    np.testing.assert_allclose(answer(model, random(2, 4, 8, 8, seed=8)), before, **CLOSE)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Add", ["c", "row"], ["y"])],
        [node("Add", ["c", "c"], ["y"])],
        [node("Relu", ["c"], ["r"]), node("Mul", ["r", "s"], ["y"])],
        [node("Mul", ["c", "s"], ["m"]), node("Add", ["m", "c"], ["y"])],
        [node("Shape", ["c"], ["n"]), node("Expand", ["s", "n"], ["e"]), node("Mul", ["c", "e"], ["y"])],
        [
            node("Abs", ["variance"], ["computed"]),
            node("BatchNormalization", ["c", "gamma", "beta", "mean", "computed"], ["y"]),
        ],
    ],
    ids=["along the width", "itself", "behind a Relu", "two readers", "not constant", "no statistics"],
)
def test_fold_batch_norm_leaves_alone(nodes):
    model = conv_then(nodes, {"row": random(6), "s": random(1, 5, 1, 1), **NORM})
    before = copy.deepcopy(model)
    assert fold_batch_norm(model.graph) == 0
    assert model == before


def test_fold_batch_norm_tells_channels_from_a_width_of_the_same_size():
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "row"], ["y"])]
    shape = ["batch", 5, 3, 5]
    model = graph_of(nodes, {"w": random(5, 5, 1, 1), "row": random(1, 1, 1, 5)}, shape, shape)
    assert fold_batch_norm(model.graph) == 0


def test_fold_batch_norm_of_a_grouped_convolution():
    nodes = [node("Conv", ["x", "w"], ["c"], group=4), *BATCH_NORM_OF_4]
    model = graph_of(nodes, {"w": random(4, 1, 1, 1), **NORM_OF_4}, ["batch", 4, 3, 3], ["batch", 4, 3, 3])
    before = answer(model, random(2, 4, 3, 3))
    assert fold_batch_norm(model.graph) == 1
    np.testing.assert_allclose(answer(model, random(2, 4, 3, 3)), before, **CLOSE)


def test_fold_batch_norm_leaves_a_convolution_that_is_called_twice():
    """Its one kernel cannot take up the norms of both calls."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c1"], "one"),
        node("BatchNormalization", ["c1", *NORM], ["n1"]),
        node("Conv", ["x", "w", "b"], ["c2"], "two"),
        node("Sum", ["n1", "c2"], ["y"]),
    ]
    constants = {"w": random(5, 4, 1, 1), "b": random(5, seed=1), **NORM}
    model = graph_of(nodes, constants, ["batch", 4, 3, 3], ["batch", 5, 3, 3])
    before = copy.deepcopy(model)
    assert fold_batch_norm(model.graph) == 0
    assert model == before


def pad_and_pool(first="Relu", amounts=(0, 0, 1, 1, 0, 0, 1, 1), value=0.0, mode="constant", **pool):
    return graph_of(
        [
            node(first, ["x"], ["a"]),
            node("Pad", ["a", "amounts", "value"], ["p"], mode=mode),
            node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2], **pool),
        ],
        {"amounts": np.array(amounts, np.int64), "value": np.float32(value)},
        ["batch", 2, 8, 8],
        ["batch", 2, None, None],
    )


def pad_read_twice():
    model = pad_and_pool()
    model.graph.node.append(node("GlobalMaxPool", ["p"], ["g"]))
    model.graph.node.append(node("Add", ["pooled", "g"], ["y"]))
    model.graph.node[2].output[0] = "pooled"
    return model


def test_zero_padding_would_win_over_negative_values():
    """Why the rewrite asks for a Relu: without one the two paddings differ."""
    zero, own = pad_and_pool(first="Neg"), pad_and_pool(first="Neg", amounts=[0] * 8, pads=[1, 1, 1, 1])
    value = np.abs(random(1, 2, 8, 8))
    assert (answer(zero, value) - answer(own, value)).max() > 0.01


@pytest.mark.parametrize(
    "amounts", [(0, 0, 1, 1, 0, 0, 1, 1), (0, 0, 0, 0, 0, 0, 1, 1), (0, 0, 2, 1, 0, 0, 0, 2)]
)
def test_pad_into_max_pool(amounts):
    model = pad_and_pool(amounts=amounts)
    value = random(3, 2, 8, 8) - 1  # mostly zeros behind the Relu: the padding would show
    before = answer(model, value)
    assert pad_into_max_pool(model.graph) == 1
    assert operators(model.graph) == ["Relu", "MaxPool"]
    np.testing.assert_array_equal(answer(model, value), before)


@pytest.mark.parametrize(
    "model",
    [
        pad_and_pool(first="Neg"),  # a zero pad would win over negative values
        pad_and_pool(value=1.0),
        pad_and_pool(amounts=(0, 0, 3, 3, 0, 0, 0, 0)),  # windows wholly in the padding
        pad_and_pool(amounts=(0, 1, 1, 1, 0, 0, 1, 1)),  # a channel is added
        pad_and_pool(amounts=(0, 0, -1, -1, 0, 0, 1, 1)),  # rows are cut off
        pad_and_pool(pads=[1, 1, 1, 1]),
        pad_and_pool(auto_pad="SAME_UPPER"),
        pad_and_pool(mode="reflect"),
        pad_read_twice(),
    ],
    ids=[
        "negative values",
        "not zero",
        "wide",
        "channels",
        "negative pads",
        "pool pads too",
        "pool pads by itself",
        "reflected",
        "two readers",
    ],
)
def test_pad_into_max_pool_leaves_alone(model):
    before = copy.deepcopy(model)
    assert pad_into_max_pool(model.graph) == 0
    assert model == before


@pytest.mark.parametrize("bias", [True, False])
def test_dense_as_gemm(bias):
    kernel, offset = random(4, 3), random(3, seed=1) if bias else np.zeros(3, np.float32)
    last = [node("MatMul", ["x", "net/dense_1/kernel"], ["m" if bias else "y"], "net/dense_1/MatMul")]
    if bias:
        last.append(node("Add", ["m", "offset"], ["y"]))
    constants = {"net/dense_1/kernel": kernel, **({"offset": offset} if bias else {})}
    model = graph_of(last, constants, ["batch", 4], ["batch", 3])
    before = answer(model, random(2, 4, seed=2))
    assert dense_as_gemm(model.graph, {"dense": (kernel, offset)}) == 1
    assert operators(model.graph) == ["Gemm"]
    assert list(model.graph.node[0].input) == ["x", "dense/kernel", "dense/bias"]
    np.testing.assert_allclose(answer(model, random(2, 4, seed=2)), before, **CLOSE)


@pytest.mark.parametrize(
    ("layer", "kernel"),
    [("dense", random(4, 3, seed=9)), ("other", random(4, 3)), ("dense", random(3, 4).reshape(4, 3) * 2)],
)
def test_dense_as_gemm_leaves_what_is_not_keras_own_weights(layer, kernel):
    model = graph_of([node("MatMul", ["x", "dense/w"], ["y"])], {"dense/w": random(4, 3)}, ["b", 4], ["b", 3])
    before = copy.deepcopy(model)
    assert dense_as_gemm(model.graph, {layer: (kernel, np.zeros(3, np.float32))}) == 0
    assert model == before


def test_dense_as_gemm_does_not_swallow_an_add_of_something_else():
    nodes = [node("MatMul", ["x", "dense/w"], ["m"]), node("Add", ["m", "k"], ["y"])]
    model = graph_of(nodes, {"dense/w": random(4, 3), "k": random(3, seed=1)}, ["b", 4], ["b", 3])
    before = answer(model, random(2, 4))
    assert dense_as_gemm(model.graph, {"dense": (random(4, 3), np.zeros(3, np.float32))}) == 1
    assert operators(model.graph) == ["Gemm", "Add"]
    np.testing.assert_allclose(answer(model, random(2, 4)), before, **CLOSE)


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax", None])
def test_end_in_log_probs(last):
    nodes = [node("MatMul", ["x", "w"], ["y" if last is None else "scores"])]
    if last:
        nodes.append(node(last, ["scores"], ["y"], axis=-1))
    model = graph_of(nodes, {"w": random(4, 3)}, ["batch", 4], ["batch", 3])
    scores = random(5, 4) @ random(4, 3)
    end_in_log_probs(model.graph)
    assert [output.name for output in model.graph.output] == ["log_probs"]
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(answer(model, random(5, 4)), expected, **CLOSE)


def pooled(*nodes):
    """Class maps `m` from `x` `[batch, 4, 3, 3]`, then the nodes."""
    first = node("Conv", ["x", "w"], ["m"])
    return graph_of([first, *nodes], {"w": random(3, 4, 1, 1), "two": np.float32([2])}, MAPS, ["batch", 3])


MAPS = ["batch", 4, 3, 3]
POOL = node("GlobalAveragePool", ["m"], ["p"])


@pytest.mark.parametrize(
    "nodes",
    [
        [POOL, node("Softmax", ["p"], ["s"], axis=1), node("Flatten", ["s"], ["y"])],
        [POOL, node("LogSoftmax", ["p"], ["s"], axis=1), node("Flatten", ["s"], ["y"])],
        [POOL, node("Flatten", ["p"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)],
        [POOL, node("Flatten", ["p"], ["f"]), node("Softmax", ["f"], ["s"]), node("Identity", ["s"], ["y"])],
        [POOL, node("Flatten", ["p"], ["y"])],
    ],
    ids=["softmax of maps", "log_softmax of maps", "flat", "behind an identity", "scores"],
)
def test_end_in_log_probs_behind_other_layouts(nodes):
    model = pooled(*nodes)
    end_in_log_probs(model.graph)
    assert operators(model.graph).count("LogSoftmax") == 1
    assert "Softmax" not in operators(model.graph)
    scores = np.einsum("nchw,kc->nk", random(2, 4, 3, 3), random(3, 4, 1, 1)[:, :, 0, 0]) / 9
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(answer(model, random(2, 4, 3, 3)), expected, **CLOSE)


def test_end_in_log_probs_of_scores_with_a_temperature():
    model = pooled(POOL, node("Flatten", ["p"], ["s"]), node("Mul", ["s", "two"], ["y"]))
    end_in_log_probs(model.graph)
    assert operators(model.graph)[-2:] == ["Mul", "LogSoftmax"]


@pytest.mark.parametrize(
    ("ends", "nodes"),
    [
        ("Sigmoid", [POOL, node("Flatten", ["p"], ["s"]), node("Sigmoid", ["s"], ["y"])]),
        ("Sigmoid", [POOL, node("Sigmoid", ["p"], ["s"]), node("Flatten", ["s"], ["y"])]),
        (
            "GlobalAveragePool",
            [
                node("Softmax", ["m"], ["s"], axis=1),
                node("GlobalAveragePool", ["s"], ["p"]),
                node("Flatten", ["p"], ["y"]),
            ],
        ),
        (
            "Mul",
            [
                POOL,
                node("Flatten", ["p"], ["f"]),
                node("Sigmoid", ["f"], ["s"]),
                node("Mul", ["f", "s"], ["y"]),
            ],
        ),
    ],
    ids=["sigmoid", "sigmoid of maps", "mean of probabilities", "swish"],
)
def test_end_in_log_probs_refuses_what_is_no_classifier(ends, nodes):
    with pytest.raises(ModelError, match=f"ends in {ends};"):
        end_in_log_probs(pooled(*nodes).graph)


def test_end_in_log_probs_refuses_pixels():
    model = graph_of([node("Flatten", ["x"], ["y"])], {}, ["batch", 4, 1, 1], ["batch", 4])
    with pytest.raises(ModelError, match="ends in its own input"):
        end_in_log_probs(model.graph)


def test_erfc_as_erf():
    """Against Python's own erfc."""
    model = graph_of(
        [node("Erfc", ["x"], ["e"], "one"), node("Erfc", ["e"], ["y"], "two")], {}, ["batch", 9], ["batch", 9]
    )
    assert erfc_as_erf(model.graph) == 2
    values = np.linspace(-3, 3, 9, dtype=np.float32)[None]
    expected = [[math.erfc(math.erfc(value)) for value in values[0]]]
    np.testing.assert_allclose(answer(model, values), expected, rtol=0, atol=1e-6)


def test_finish_refuses_operators_that_onnx_does_not_have():
    model = graph_of([node("StatefulPartitionedCall", ["x"], ["y"])], {}, ["batch", 4], ["batch", 4])
    with pytest.raises(ModelError, match="needs StatefulPartitionedCall, which ONNX does not have"):
        finish(model)


def test_log_probs_stay_finite_where_probabilities_do_not():
    nodes = [node("MatMul", ["x", "w"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    model = graph_of(nodes, {"w": np.eye(4, dtype=np.float32)}, ["batch", 4], ["batch", 4])
    end_in_log_probs(model.graph)
    found = answer(model, np.array([[500, 0, 0, -500]], np.float32))
    np.testing.assert_allclose(found, [[0, -500, -500, -1000]])


def flattened_dense(columns=3):
    """What tf2onnx makes of a Dense on a map: all positions flattened, and shaped back."""
    return graph_of(
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
            node("Reshape", ["t", "flat"], ["f"]),
            node("MatMul", ["f", "w"], ["m"]),
            node("Reshape", ["m", "back"], ["r"]),
            node("Add", ["r", "b"], ["y"]),
        ],
        {
            "flat": np.array([-1, 4], np.int64),
            "back": np.array([-1, 2, columns, 5], np.int64),
            "w": random(4, 5),
            "b": random(5, seed=1),
        },
        ["batch", 4, 2, 3],
        ["batch", 2, columns, 5],
    )


def test_dense_on_maps():
    model, value = flattened_dense(), random(2, 4, 2, 3, seed=2)
    before = answer(model, value)
    assert dense_on_maps(model) == 1
    assert operators(model.graph) == ["Transpose", "MatMul", "Add"]
    np.testing.assert_allclose(answer(model, value), before, rtol=1e-6, atol=1e-6)


def test_a_product_that_is_shaped_otherwise_stays():
    model = flattened_dense(columns=1)
    before = copy.deepcopy(model)
    assert dense_on_maps(model) == 0
    assert model == before


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


def test_finish_keeps_only_what_is_needed():
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["unused"])]
    model = graph_of(nodes, {"idle": random(3)}, ["batch", 4], ["batch", 4])
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    before = answer(model, random(2, 4))
    finish(model)
    np.testing.assert_array_equal(answer(model, random(2, 4)), before)
    assert operators(model.graph) == ["Relu"]
    assert not model.graph.initializer
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version <= 10


def test_finish_refuses_foreign_operators():
    model = graph_of([node("Gelu", ["x"], ["y"], domain="com.microsoft")], {}, ["b", 4], ["b", 4])
    with pytest.raises(ModelError, match=r"com\.microsoft"):
        finish(model)
