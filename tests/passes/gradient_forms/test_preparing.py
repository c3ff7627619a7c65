"""What is refused, and for every operation that may be trained through a comparison of the runtime's gradient
with finite differences in float64, computed by onnx's reference evaluator."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from birdsonnx.errors import ConfigError
from birdsonnx.model.edits import make_inputs
from birdsonnx.passes.gradient_forms.differentiable import DIFFERENTIABLE
from birdsonnx.passes.gradient_forms.preparing import prepare
from birdsonnx.passes.head_gradients import reverse
from birdsonnx.passes.head_gradients.rules import RULES
from birdsonnx.runtime.gradient_builder import with_gradients
from birdsonnx.training.session_kernels import gradient_graph
from tests.conftest import needs_training_runtime
from tests.graphs import graph_of, random
from tests.passes.gradient_forms.networks import NORM, averaged

node = helper.make_node
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_what_is_frozen_before_it_is_neither_touched_nor_refused(pads):
    model = averaged(pads=pads)
    nodes = [
        node("Elu", ["y"], ["e"], "elu/Elu"),
        node("BatchNormalization", ["e", *NORM], ["n"], "bn/BatchNormalization"),
        node("Conv", ["n", "v"], ["z"], "last/Conv", kernel_shape=[1, 1]),
        node("Relu", ["z"], ["out"], "last/Relu"),
    ]
    model.graph.node.extend(nodes)
    for name, value in {"v": random(5, 5, 1, 1, seed=1), **NORM}.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.output[0].name = "out"
    before = copy.deepcopy(model)
    prepare(model, {"v": None}, ["conv", "mean", "elu", "bn", "last"], "net")
    assert model == before


# --- Refusals -------------------------------------------------------------------------------------------


def trained(nodes: Sequence[NodeProto], constants: dict[str, Any], shape: Sequence[int]) -> ModelProto:
    """`nodes` from `a` to `o`, where `a` is the input times a weight `w`."""
    return graph_of(
        [node("Mul", ["x", "w"], ["a"], "scale/Mul"), *nodes],
        {"w": random(*shape), **constants},
        ["batch", *shape],
        ["batch"],
    )


@pytest.mark.parametrize("operation", ["Sum", "Round", "ConvTranspose", "GlobalLpPool"])
def test_an_operation_without_a_gradient_is_refused_by_name(operation):
    model = trained([node(operation, ["a"], ["o"], f"act_7/{operation}")], {}, (3, 4, 4))
    message = (
        rf"^net: layer 'act_7' is a {operation}, which has no gradient in ONNX Runtime, and layers before it "
        r'are to be trained; choose only layers after it with "birdsonnx": {"trainable": \[...\]}$'
    )
    with pytest.raises(ConfigError, match=message):
        prepare(model, {"w": None}, ["scale", "act_7"], "net")


def test_a_node_that_belongs_to_no_layer_is_named_itself():
    model = trained([node("Round", ["a"], ["o"], "block/plus/Round")], {}, (3, 4, 4))
    with pytest.raises(ConfigError, match="layer 'block/plus' is a Round"):
        prepare(model, {"w": None}, ["scale"], "net")


def of(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


SILENTLY_WRONG = {
    "MaxPool counts by columns": (
        [node("MaxPool", ["a"], ["o"], kernel_shape=[2, 2], strides=[2, 2], storage_order=1)],
        {},
    ),
    "Split with an unread part": ([node("Split", ["a", "k"], ["unread", "o"], axis=1)], {"k": of(2, 1)}),
}
FAILING = {
    "Cast to integers": ([node("Cast", ["a"], ["o"], to=TensorProto.INT32)], {}),
    "Max of three": ([node("Max", ["a", "k", "x"], ["o"])], {"k": random(3, 4, 4)}),
    "MatMul with a vector": ([node("MatMul", ["a", "k"], ["o"])], {"k": random(4)}),
    "Pad by reflection": (
        [node("Pad", ["a", "k"], ["o"], mode="reflect")],
        {"k": of(0, 0, 1, 1, 0, 0, 1, 1)},
    ),
    "Pad of some axes": ([node("Pad", ["a", "k", "", "l"], ["o"])], {"k": of(1, 1), "l": of(2)}),
    "Pow of a trained exponent": ([node("Pow", ["k", "a"], ["o"])], {"k": np.float32(2)}),
    "ReduceSum of nothing": ([node("ReduceSum", ["a"], ["o"], noop_with_empty_axes=1)], {}),
    "Slice backwards": (
        [node("Slice", ["a", "k", "l", "m", "n"], ["o"])],
        {"k": of(-1), "l": of(-9), "m": of(-1), "n": of(-1)},
    ),
    "Transpose without axes": ([node("Transpose", ["a"], ["o"])], {}),
}


@pytest.mark.parametrize(
    ("nodes", "constants"), [*SILENTLY_WRONG.values(), *FAILING.values()], ids=[*SILENTLY_WRONG, *FAILING]
)
def test_a_form_without_a_right_gradient_is_refused(nodes, constants):
    model = trained(nodes, constants, (3, 4, 4))
    operation = nodes[-1].op_type
    with pytest.raises(ConfigError, match=f"is a {operation}, which has no gradient .* in this form"):
        prepare(model, {"w": None}, ["scale"], "net")


# --- Gradients ------------------------------------------------------------------------------------------


class Erf(OpRun):
    """In float64; onnx's own gives float32."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.vectorize(math.erf)(x),)


POOLED = node("ReduceMean", ["a"], ["m"], axes=[2, 3], keepdims=1)
FLAT = node("Flatten", ["a"], ["f"])
POSITIVE = ("Div", "Log", "Pow", "Reciprocal", "Sqrt")
"""Whose operand is kept away from 0."""


def conv(weights: Sequence[str] = ("a", "k"), **attributes: Any) -> list[NodeProto]:
    return [node("Conv", weights, ["o"], **attributes)]


def plain(operation: str, *further: str, **attributes: Any) -> list[NodeProto]:
    return [node(operation, ["a", *further], ["o"], **attributes)]


# What lies between `a = x * w` (or `x` and `w` themselves) and `o`; `k` … are constants.
CASES: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    **{
        name: (plain(name), {})
        for name in ("Abs", "Erf", "Exp", "Identity", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid")
    },
    **{name: (plain(name), {}) for name in ("Sqrt", "Tanh", "GlobalAveragePool", "LeakyRelu", "Flatten")},
    "Add": (plain("Add", "k"), {"k": random(1, 3, 1, 1)}),
    "Add, broadcast": ([POOLED, node("Add", ["m", "a"], ["o"])], {}),
    "Add of a bias": ([node("Add", ["x", "w"], ["b"]), node("Exp", ["b"], ["o"])], {}),
    "Cast": (plain("Cast", to=TensorProto.FLOAT), {}),
    "Clip": (plain("Clip", "k", "l"), {"k": np.float32(-0.5), "l": np.float32(0.5)}),
    "Clip below": (plain("Clip", "k"), {"k": np.float32(-0.5)}),
    "Clip above": (plain("Clip", "", "k"), {"k": np.float32(0.5)}),
    "Concat of channels": ([node("Neg", ["a"], ["n"]), *plain("Concat", "n", "x", "a", axis=1)], {}),
    "Concat of columns": ([node("Exp", ["a"], ["n"]), *plain("Concat", "n", axis=-1)], {}),
    "Conv": (conv(("a", "k", "l"), pads=[1, 1, 1, 1]), {"k": random(2, 3, 3, 3), "l": random(2)}),
    "Conv, strides": (conv(strides=[2, 1], pads=[0, 1, 1, 0]), {"k": random(2, 3, 3, 2)}),
    "Conv, dilations": (conv(dilations=[1, 2]), {"k": random(2, 3, 2, 2)}),
    "Conv, groups": (conv(group=3, pads=[1, 1, 1, 1]), {"k": random(6, 1, 3, 3)}),
    "Conv, valid": (conv(auto_pad="VALID"), {"k": random(2, 3, 3, 3)}),
    "Conv, 1 x 1": (conv(strides=[2, 2]), {"k": random(2, 3, 1, 1)}),
    "Conv, kernel": (
        conv(("x", "w"), strides=[2, 1], pads=[0, 0, 1, 1]),
        {"x": random(2, 4, 7, 5), "w": random(2, 4, 3, 2)},
    ),
    "Conv, depthwise kernel": (conv(("x", "w"), group=2), {"x": random(2, 2, 6, 5), "w": random(2, 1, 3, 3)}),
    "Conv, bias": (
        [node("Conv", ["x", "k", "w"], ["c"]), node("Exp", ["c"], ["o"])],
        {"x": random(2, 3, 4, 3), "k": random(2, 3, 3, 3) / 9, "w": random(2)},
    ),
    "Div": (plain("Div", "k"), {"k": random(3, 1, 1) + 3}),
    "Div by itself": ([POOLED, node("Div", ["a", "m"], ["o"])], {}),
    "Div, broadcast": ([POOLED, node("Div", ["m", "a"], ["o"])], {}),
    "Flatten, axis": (plain("Flatten", axis=2), {}),
    "Gather backwards": (plain("Gather", "k", axis=2), {"k": of(3, 2, 1, 0)}),
    "Gather, some twice": (plain("Gather", "k", axis=1), {"k": of(2, 0, 2)}),
    "Gemm": ([FLAT, node("Gemm", ["f", "k", "l"], ["o"])], {"k": random(36, 2), "l": random(2)}),
    "Gemm, transposed": (
        [FLAT, node("Gemm", ["f", "k", "l"], ["o"], transB=1, alpha=0.5, beta=2.0)],
        {"k": random(2, 36), "l": random(2)},
    ),
    "Gemm, kernel": (
        [node("Gemm", ["x", "w", "k"], ["o"])],
        {"x": random(2, 4), "w": random(4, 3), "k": random(3)},
    ),
    "Gemm, bias": (
        [node("Gemm", ["x", "k", "w"], ["g"]), node("Exp", ["g"], ["o"])],
        {"x": random(2, 4), "k": random(4, 3) / 4, "w": random(3)},
    ),
    "LeakyRelu, alpha": (plain("LeakyRelu", alpha=0.2), {}),
    "LogSoftmax": (plain("LogSoftmax"), {}),
    "LogSoftmax, axis": (plain("LogSoftmax", axis=1), {}),
    "MatMul": (plain("MatMul", "k"), {"k": random(3, 2)}),
    "MatMul, left": ([node("MatMul", ["k", "a"], ["o"])], {"k": random(2, 4)}),
    "MatMul, both": (
        [node("Transpose", ["a"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["a", "t"], ["o"])],
        {},
    ),
    "MatMul, kernel": ([node("MatMul", ["x", "w"], ["o"])], {"x": random(2, 5, 4), "w": random(4, 3)}),
    **{
        f"{name}{which}": case
        for name in ("Max", "Min")
        for which, case in {
            "": (plain(name, "k"), {"k": random(3, 4, 3)}),
            ", broadcast": (plain(name, "k"), {"k": random(3, 1, 1)}),
            " with itself": ([node("Neg", ["a"], ["n"]), *plain(name, "n")], {}),
            " by means": ([POOLED, *plain(name, "m")], {}),
        }.items()
    },
    "MaxPool": (plain("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), {}),
    "MaxPool, pads": (plain("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    "MaxPool, ceil": (plain("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), {}),
    "MaxPool, same": (plain("MaxPool", kernel_shape=[2, 3], auto_pad="SAME_UPPER"), {}),
    "Mul": (plain("Mul", "k"), {"k": random(3, 1, 1)}),
    "Mul with itself": (plain("Mul", "a"), {}),
    "Mul, broadcast": ([POOLED, node("Mul", ["a", "m"], ["o"])], {}),
    "Pad": (plain("Pad", "k"), {"k": of(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Pad with channels": (plain("Pad", "k", "l"), {"k": of(0, 1, 0, 2, 0, 2, 0, 1), "l": np.float32(3)}),
    **{f"Pow {power}": (plain("Pow", "k"), {"k": np.float32(power)}) for power in (-1, 0.5, 1, 2, 3)},
    "ReduceMean": (plain("ReduceMean", axes=[1], keepdims=0), {}),
    "ReduceMean of all": (plain("ReduceMean", keepdims=0), {}),
    "ReduceSum": (plain("ReduceSum", "k", keepdims=0), {"k": of(-1)}),
    "ReduceSum, kept": (plain("ReduceSum", "k", keepdims=1), {"k": of(1, 3)}),
    "ReduceSum of all": (plain("ReduceSum", keepdims=0), {}),
    "Reshape": (plain("Reshape", "k"), {"k": of(-1, 9, 4)}),
    "Reshape, 0": (plain("Reshape", "k"), {"k": of(0, -1, 3)}),
    "Slice": (
        plain("Slice", "k", "l", "m", "n"),
        {"k": of(0, 1), "l": of(2**31 - 1, 3), "m": of(2, 3), "n": of(2, 1)},
    ),
    "Slice from the end": (plain("Slice", "k", "l", "m"), {"k": of(-2), "l": of(-1), "m": of(-2)}),
    "Softmax": (plain("Softmax"), {}),
    "Softmax, axis": (plain("Softmax", axis=1), {}),
    "Split": (
        [node("Split", ["a", "k"], ["p", "q"], axis=1), node("Mul", ["p", "q"], ["o"])],
        {"k": of(1, 2)},
    ),
    "Split in halves": (
        [node("Split", ["a"], ["p", "q"], axis=2), node("Mul", ["p", "q"], ["o"])],
        {},
    ),
    "Squeeze": ([POOLED, node("Squeeze", ["m", "k"], ["o"])], {"k": of(2, 3)}),
    "Sub": ([node("Sub", ["k", "a"], ["o"])], {"k": random(3, 1, 1)}),
    "Sub, broadcast": ([POOLED, node("Sub", ["a", "m"], ["o"])], {}),
    "Transpose": (plain("Transpose", perm=[0, 2, 3, 1]), {}),
    "Unsqueeze": (plain("Unsqueeze", "k"), {"k": of(1)}),
}
REWRITTEN: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    "AveragePool": (plain("AveragePool", kernel_shape=[2, 2]), {}),
    "AveragePool, pads": (plain("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), {}),
    "AveragePool, strides": (
        plain("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1]),
        {},
    ),
    "AveragePool, pads that count": (
        plain("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1),
        {},
    ),
    "BatchNormalization": (
        plain("BatchNormalization", "g", "b", "m", "v"),
        {"g": random(3), "b": random(3), "m": random(3), "v": random(3) ** 2 + 0.1},
    ),
    "Conv pads itself": (
        conv(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        {"k": random(4, 3, 3, 3)},
    ),
    "depthwise Conv pads itself": (
        conv(kernel_shape=[3, 3], strides=[1, 2], group=3, auto_pad="SAME_LOWER"),
        {"k": random(6, 1, 3, 3)},
    ),
    "Elu": (plain("Elu", alpha=0.7), {}),
    "GlobalMaxPool": (plain("GlobalMaxPool"), {}),
    "HardSigmoid": (plain("HardSigmoid", alpha=0.3), {}),
    "HardSwish": (plain("HardSwish"), {}),
    "layer normalization": (
        [
            node("ReduceMean", ["a"], ["m"], axes=[1]),
            node("Sub", ["a", "m"], ["d"]),
            node("Mul", ["d", "d"], ["q"]),
            node("ReduceMean", ["q"], ["v"], axes=[1]),
            node("Add", ["v", "e"], ["u"]),
            node("Sqrt", ["u"], ["s"]),
            node("Reciprocal", ["s"], ["r"]),
            node("Mul", ["d", "r"], ["o"]),
        ],
        {"e": np.float32(1e-3)},
    ),
    "ReduceMax": (plain("ReduceMax", axes=[2, 3], keepdims=0), {}),
    "ReduceMax, kept": (plain("ReduceMax", axes=[-1, -2]), {}),
    "ReduceMax of channels": (plain("ReduceMax", axes=[1], keepdims=0), {}),
    "ReduceMax of two axes, kept": (plain("ReduceMax", axes=[1, 3]), {}),
    "ReduceMax of the last axis": (plain("ReduceMax", axes=[-1], keepdims=0), {}),
    "ReduceMax of photos as wholes": (plain("ReduceMax", axes=[1, 2, 3]), {}),
    "Selu": (plain("Selu"), {}),
    "Softplus": (plain("Softplus"), {}),
    "Softsign": (plain("Softsign"), {}),
    "squeeze and excite": (
        [
            node("GlobalAveragePool", ["a"], ["m"]),
            node("Conv", ["m", "k"], ["e"]),
            node("Sigmoid", ["e"], ["s"]),
            node("Mul", ["a", "s"], ["o"]),
        ],
        {"k": random(3, 3, 1, 1)},
    ),
    "swish": ([node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["o"])], {}),
    "swish, concatenated": (
        [
            node("Sigmoid", ["a"], ["s"]),
            node("Mul", ["a", "s"], ["t"]),
            node("AveragePool", ["a"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Concat", ["t", "p"], ["o"], axis=1),
        ],
        {},
    ),
}
"""Operations that get another form, and small networks of several."""
REWRITTEN_TO_KNOWN = {
    "BatchNormalization",
    "Elu",
    "HardSigmoid",
    "HardSwish",
    "Selu",
    "Softplus",
    "Softsign",
}
"""Those whose other form our own builder knows too."""
CASES_OF_OPSET_18 = {
    "ReduceMean": (plain("ReduceMean", "k", keepdims=0), {"k": of(1, 3)}),
    "Split": (
        [node("Split", ["a"], ["p", "q"], axis=2, num_outputs=2), node("Mul", ["p", "q"], ["o"])],
        {},
    ),
}
"""Operations that it changed."""
SHAPE = (3, 4, 3)


def test_every_operation_has_a_case():
    """But Dropout, which is a Mul by then (tests/training/test_masks.py)."""
    assert {name.split(" ")[0].strip(",") for name in CASES} == DIFFERENTIABLE - {"Dropout"}


def graph_to(
    output: str,
    nodes: Sequence[NodeProto],
    values: dict[str, Any],
    feeds: Sequence[str],
    wide: bool,
    opset: int,
) -> ModelProto:
    """A graph in float32, or in float64, with everything but `feeds` as a constant."""
    kind, number = (TensorProto.DOUBLE, np.float64) if wide else (TensorProto.FLOAT, np.float32)
    constants = {
        name: value if value.dtype == np.int64 else value.astype(number) for name, value in values.items()
    }
    nodes = copy.deepcopy(list(nodes))
    for item in nodes:
        for attribute in item.attribute:
            if attribute.name == "to":
                attribute.i = kind
    inputs = [
        helper.make_tensor_value_info(
            name, kind, ["batch", *values[name].shape[1:]] if name == "x" else values[name].shape
        )
        for name in feeds
    ]
    tensors = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name not in feeds
    ]
    outputs = [helper.make_tensor_value_info(output, kind, [] if output == "loss" else None)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_the_runtime(model: ModelProto, weights: list[str]) -> ModelProto:
    """The graph of gradients that ONNX Runtime's builder makes."""
    make_inputs(model.graph, set(weights))
    return onnx.load_model_from_string(with_gradients(model.SerializeToString(), "loss", weights))


def with_builders(cases: dict[str, tuple[Any, ...]]) -> list[Any]:
    """Each case with the runtime's builder and, where it knows the operations, with ours."""
    ours = RULES.keys() | REWRITTEN_TO_KNOWN
    return [
        pytest.param(*case, build, id=f"{name} {title}", marks=marks)
        for name, case in cases.items()
        for build, title, marks in (
            (by_the_runtime, "by the runtime", needs_training_runtime),
            (gradient_graph, "by ours", ()),
        )
        if build is by_the_runtime or all(item.op_type in ours for item in case[0])
    ]


def gradients_of(
    nodes: list[NodeProto],
    constants: dict[str, Any],
    opset: int = 17,
    prepared: bool = False,
    build: Callable[[ModelProto, list[str]], ModelProto] = by_the_runtime,
) -> tuple[np.ndarray, np.ndarray]:
    """Those of `sum(o * probe)` with respect to `w`: the graph's, of the nodes or of what `prepare` makes
    of them, and by central differences."""
    positive = any(item.op_type in POSITIVE for item in nodes)
    generator = np.random.default_rng(1)

    def operand(*shape: int) -> np.ndarray:
        found = generator.uniform(0.5, 1.5, shape) if positive else generator.normal(size=shape)
        return found.astype(np.float32)

    scaled = any("a" in item.input for item in nodes)
    values = {"x": operand(2, *SHAPE), "w": operand(*SHAPE), **constants}
    if scaled:
        nodes = [node("Mul", ["x", "w"], ["a"], "scale/Mul"), *nodes]
    bare = ReferenceEvaluator(graph_to("o", nodes, values, ["x", "w"], True, opset), new_ops=[Erf])
    wide = {name: values[name].astype(np.float64) for name in ("x", "w")}
    values["probe"] = generator.normal(size=bare.run(None, wide)[0].shape).astype(np.float32)
    nodes = [
        *nodes,
        node("Mul", ["o", "probe"], ["probed"]),
        node("ReduceSum", ["probed"], ["loss"], keepdims=0),
    ]
    evaluator = ReferenceEvaluator(graph_to("loss", nodes, values, ["x", "w"], True, opset), new_ops=[Erf])
    step = 1e-6  # in float64: errors of the order of 1e-10
    expected = np.zeros(values["w"].shape)
    for index in np.ndindex(expected.shape):
        losses = []
        for sign in (1, -1):
            nudged = wide["w"].copy()
            nudged[index] += sign * step
            losses.append(float(evaluator.run(None, {"x": wide["x"], "w": nudged})[0]))
        expected[index] = (losses[0] - losses[1]) / (2 * step)

    model = graph_to("loss", nodes, values, ["x"], False, opset)
    if prepared:
        prepare(model, {"w": None}, [], "net")
    assert build is by_the_runtime or reverse.last_unknown(model, ["w"]) is None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(build(model, ["w"]).SerializeToString(), options)
    [found] = session.run(["w_grad"], {"x": values["x"], "w": values["w"]})
    return found, expected


@pytest.mark.parametrize(
    ("nodes", "constants", "opset", "build"),
    with_builders(
        {
            **{f"{opset} {name}": (*case, opset) for opset in (13, 17) for name, case in CASES.items()},
            **{f"18 {name}": (*case, 18) for name, case in CASES_OF_OPSET_18.items()},
        }
    ),
)
def test_gradients_against_finite_differences(nodes, constants, opset, build):
    model = trained(nodes, {name: value for name, value in constants.items() if name not in "xw"}, SHAPE)
    prepare(model, {"w": None}, [], "net")  # not refused
    found, expected = gradients_of(nodes, constants, opset, build=build)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 1e-3
    # Sums of some 10 float32 products of numbers around 1.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize(("nodes", "constants", "build"), with_builders(REWRITTEN))
def test_gradients_of_other_forms_against_finite_differences(nodes, constants, opset, build):
    found, expected = gradients_of(nodes, constants, opset, prepared=True, build=build)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@needs_training_runtime
@pytest.mark.parametrize(("nodes", "constants"), SILENTLY_WRONG.values(), ids=SILENTLY_WRONG)
def test_why_some_forms_are_refused(nodes, constants):
    """A runtime that fails here has learnt them."""
    found, expected = gradients_of(nodes, constants)
    assert np.abs(found - expected).max() > 0.1 * np.abs(expected).max()
