"""The derivative of each operation.

Where a derivative jumps it is that of ONNX Runtime's builder, as the forms of `gradient_forms` want it: of
Relu 0 at 0, of Clip 1 at its limits, of Abs 0 at 0; of two equal values Max and Min take half of each.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from birdsonnx.model.graph import Graph, attribute, number
from birdsonnx.passes.head_gradients.backward import Backward

Rule = Callable[[Backward, NodeProto, Sequence[str], int], str]
"""The nodes so far, one of the graph, the gradients by its results, and the place of an input -> the gradient
by that input."""

FLOAT = TensorProto.FLOAT
LARGEST = float(np.finfo(np.float32).max)


def known(node: NodeProto, graph: Graph) -> bool:
    """Whether `RULES` have the derivative of a node in its form. That of `differentiable.check` is given."""
    match node.op_type:
        case "Concat":  # along the photos the pieces would depend on their number
            return attribute(node, "axis", 0) != 0
        case "ReduceMean" | "ReduceSum":
            return len(node.input) < 2 or node.input[1] in graph.constants
    return node.op_type in RULES


# --- Products of matrices ---------------------------------------------------------------------------------


def _gemm(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    """`Y = alpha A' B' + beta C`, where A' and B' are turned if `transA` and `transB` say so."""
    [gradient] = gradients
    a, b = node.input[:2]
    turn_a, turn_b = (int(bool(attribute(node, name, 0))) for name in ("transA", "transB"))
    alpha, beta = number(node, "alpha", 1.0), number(node, "beta", 1.0)
    if place == 2:
        total = back.summed(gradient, back.shape(node.output[0]), node.input[2])
        return total if beta == 1 else back("Mul", total, beta)
    if place == 0:
        if turn_a:
            return back("Gemm", b, gradient, alpha=alpha, transA=turn_b, transB=1)
        return back("Gemm", gradient, b, alpha=alpha, transB=1 - turn_b)
    if turn_b:
        return back("Gemm", gradient, a, alpha=alpha, transA=1, transB=turn_a)
    return back("Gemm", a, gradient, alpha=alpha, transA=1 - turn_a)


def _matmul(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    [gradient] = gradients
    a, b = node.input
    left, right, result = map(back.shape, (a, b, node.output[0]))
    if len(left) == len(right) == 2:
        return _gemm(back, node, gradients, place)
    if place == 0:
        product = back("MatMul", gradient, back.turned(b, len(right)))
        return back.summed(product, (*result[:-1], left[-1]), a)
    if len(right) == 2:  # one product of all rows, which no batch of results has to be summed over
        rows, errors = (
            back("Reshape", each, np.array([-1, size]))
            for each, size in zip((a, gradient), right, strict=True)
        )
        return back("Gemm", rows, errors, transA=1)
    product = back("MatMul", back.turned(a, len(left)), gradient)
    return back.summed(product, (*result[:-2], *right[-2:]), b)


# --- Arithmetic, with broadcasting ------------------------------------------------------------------------


def _add(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    return back.summed(gradients[0], back.shape(node.output[0]), node.input[place])


def _sub(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    total = _add(back, node, gradients, place)
    return back("Neg", total) if place else total


def _mul(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    return _add(back, node, [back("Mul", gradients[0], node.input[1 - place])], place)


def _div(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    part = back("Div", gradients[0], node.input[1])
    if place:  # d(a / b) / db = -(a / b) / b
        part = back("Neg", back("Mul", part, node.output[0]))
    return _add(back, node, [part], place)


def _pow(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    base, exponent = node.input
    slope = back("Mul", exponent, back("Pow", base, back("Sub", exponent, 1.0)))
    return _add(back, node, [back("Mul", gradients[0], slope)], place)


def _extreme(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    own, other = node.input[place], node.input[1 - place]
    wins = back("Greater" if node.op_type == "Max" else "Less", own, other)
    share = back("Where", wins, 1.0, back("Where", back("Equal", own, other), 0.5, 0.0))
    return _add(back, node, [back("Mul", gradients[0], share)], place)


# --- Functions of each value ------------------------------------------------------------------------------


def _function(slope: Callable[[Backward, str, str], str]) -> Rule:
    """A rule for `y = f(x)` out of the names of x and y -> that of `dy / dx`."""

    def rule(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
        return back("Mul", gradients[0], slope(back, node.input[0], node.output[0]))

    return rule


def _relu(back: Backward, _: str, y: str) -> str:
    """1 for every positive float32 but the subnormal ones: 6 times as fast as a comparison and a choice
    (`blocked.relu_grad`)."""
    return back("HardSigmoid", y, alpha=LARGEST, beta=0.0)


def _leaky_relu(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    above = back("Greater", node.input[0], 0.0)
    return back("Where", above, gradients[0], back("Mul", gradients[0], number(node, "alpha", 0.01)))


def _clip(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    x, *limits = node.input
    gradient = gradients[0]
    for operation, limit in zip(("GreaterOrEqual", "LessOrEqual"), limits, strict=False):
        if limit:
            gradient = back("Where", back(operation, x, limit), gradient, 0.0)
    return gradient


def _erf(back: Backward, x: str, _: str) -> str:
    return back("Mul", back("Exp", back("Neg", back("Mul", x, x))), 2 / math.sqrt(math.pi))


# --- Along axes -------------------------------------------------------------------------------------------


def _log_softmax(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    """`dx = dy - softmax(x) sum(dy)`."""
    [gradient], y = gradients, node.output[0]
    total = back("ReduceSum", gradient, np.array([attribute(node, "axis", -1)]), keepdims=1)
    return back("Sub", gradient, back("Mul", back("Exp", y), total))


def _softmax(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    """`dx = y (dy - sum(y dy))`."""
    [gradient], y = gradients, node.output[0]
    total = back("ReduceSum", back("Mul", gradient, y), np.array([attribute(node, "axis", -1)]), keepdims=1)
    return back("Mul", y, back("Sub", gradient, total))


def _axes(back: Backward, node: NodeProto) -> list[int]:
    """Those that a node reduces, an attribute or, from opset 13 or 18 on, an input; none are all."""
    given: Any = back.value(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    dimensions = len(back.shape(node.input[0]))
    axes = range(dimensions) if given is None or len(given) == 0 else given
    return sorted(int(axis) % dimensions for axis in axes)


def _reduce_sum(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    [gradient] = gradients
    if not attribute(node, "keepdims", 1):
        gradient = back("Unsqueeze", gradient, np.array(_axes(back, node)))
    return back.spread(gradient, node.input[0])


def _reduce_mean(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    """The mean may be over the photos too, whose number only a run knows."""
    after, before = (back("Cast", back("Size", name), to=FLOAT) for name in (node.output[0], node.input[0]))
    return _reduce_sum(back, node, [back("Mul", gradients[0], back("Div", after, before))], place)


def _global_average_pool(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    count = math.prod(back.shape(node.input[0])[2:])
    return back.spread(back("Mul", gradients[0], 1 / count), node.input[0])


# --- Other shapes -----------------------------------------------------------------------------------------


def _same(_: Backward, __: NodeProto, gradients: Sequence[str], ___: int) -> str:
    return gradients[0]


def _reshape(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    return back.as_shaped(gradients[0], node.input[0])


def _transpose(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    order: Any = attribute(node, "perm")
    return back("Transpose", gradients[0], perm=np.argsort(order).tolist())


def _concat(back: Backward, node: NodeProto, gradients: Sequence[str], place: int) -> str:
    axis: Any = attribute(node, "axis")
    ends = np.cumsum([back.shape(name)[axis] for name in node.input])
    start = ends[place] - back.shape(node.input[place])[axis]
    return back("Slice", gradients[0], np.array([start]), ends[place : place + 1], np.array([axis]))


def _split(back: Backward, node: NodeProto, gradients: Sequence[str], _: int) -> str:
    return back("Concat", *gradients, axis=attribute(node, "axis", 0))


RULES: dict[str, Rule] = {
    "Abs": _function(lambda back, x, _: back("Sign", x)),
    "Add": _add,
    "Cast": _same,  # float32 to float32: no other cast after a weight has passed `differentiable.check`
    "Clip": _clip,
    "Concat": _concat,
    "Div": _div,
    "Dropout": _same,  # one that acts is a product with a mask by now
    "Erf": _function(_erf),
    "Exp": _function(lambda _, __, y: y),
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "Log": lambda back, node, gradients, _: back("Div", gradients[0], node.input[0]),
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "Max": _extreme,
    "Min": _extreme,
    "Mul": _mul,
    "Neg": lambda back, _, gradients, __: back("Neg", gradients[0]),
    "Pow": _pow,
    "Reciprocal": _function(lambda back, _, y: back("Neg", back("Mul", y, y))),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": _function(_relu),
    "Reshape": _reshape,
    "Sigmoid": _function(lambda back, _, y: back("Mul", y, back("Sub", 1.0, y))),
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _function(lambda back, _, y: back("Div", 0.5, y)),
    "Squeeze": _reshape,
    "Sub": _sub,
    "Tanh": _function(lambda back, _, y: back("Sub", 1.0, back("Mul", y, y))),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
