"""How nodes of ONNX become operations: a rule for each type of node.

A rule gives None where a node has a form that is not known here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto

from birdsonnx.model.graph import Array, Graph, attribute, integers, number, pads_are_given
from birdsonnx.onednn.operations.activation import (
    HARD_SWISH,
    RELU,
    SIGMOID,
    TANH,
    Activation,
    clip,
    elu,
    hard_sigmoid,
    leaky_relu,
)
from birdsonnx.onednn.operations.affine import Affine
from birdsonnx.onednn.operations.arithmetic import Product, Sum
from birdsonnx.onednn.operations.convolution import Convolution
from birdsonnx.onednn.operations.joining import Joined, Padded
from birdsonnx.onednn.operations.operation import Operation
from birdsonnx.onednn.operations.pooling import Pool
from birdsonnx.onednn.primitives import AVERAGE_OF_ALL, AVERAGE_OF_REAL, MAX, Function, Window

Shape = tuple[int, ...]


class GraphValues:
    """What rules ask of a graph's tensors.

    Args:
        graph: that the nodes are of.
        shapes: of one photo's values.
    """

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape]) -> None:
        self._graph, self._shapes = graph, shapes

    def is_map(self, *names: str) -> bool:
        return all(len(self._shapes.get(name, ())) == 3 for name in names)

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def constant(self, name: str) -> Array | None:
        return self._graph.constant(name)

    def dims(self, name: str) -> Shape | None:
        """The shape of a constant."""
        tensor = self._graph.constants.get(name)
        return None if tensor is None else tuple(tensor.dims)


Rule = Callable[[GraphValues, NodeProto], list[Operation] | None]


def _convolution(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    kernel = graph.dims(node.input[1])
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if not graph.is_map(node.input[0], node.output[0]) or kernel is None or not pads_are_given(node):
        return None
    if bias is not None and graph.dims(bias) is None:
        return None
    window = _window(node, (kernel[2], kernel[3]))
    groups: Any = attribute(node, "group", 1)
    return [Convolution(node.input[0], node.input[1], bias, node.output[0], kernel, groups, window)]


def _window(node: NodeProto, kernel: tuple[int, int]) -> Window:
    strides, dilations = integers(node, "strides", 1), integers(node, "dilations", 1)
    top, left, bottom, right = integers(node, "pads", 0, 4)
    gaps = (dilations[0] - 1, dilations[1] - 1)
    return Window(kernel, (strides[0], strides[1]), gaps, (top, left), (bottom, right))


def _pool(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    if not graph.is_map(node.input[0], node.output[0]) or not pads_are_given(node):
        return None
    if len(node.output) > 1 or attribute(node, "storage_order", 0):
        return None
    height, width = integers(node, "kernel_shape", 1)
    window = _window(node, (height, width))
    if node.op_type == "MaxPool":
        # One value per window: its mean needs no note of where it was.
        algorithm = AVERAGE_OF_ALL if (height, width) == (1, 1) else MAX
    else:
        algorithm = AVERAGE_OF_ALL if attribute(node, "count_include_pad", 0) else AVERAGE_OF_REAL
    size = graph.shape(node.input[0])[1:]
    after = [  # what the library wants to be exact: a window that does not fit is left out
        (made - 1) * stride + (window_ - 1) * (gap + 1) + 1 - side - before
        for made, stride, window_, gap, side, before in zip(
            graph.shape(node.output[0])[1:], window.strides, window.kernel, window.gaps, size, window.before,
            strict=True,
        )
    ]  # fmt: skip
    if algorithm == AVERAGE_OF_ALL and attribute(node, "ceil_mode", 0):
        return None
    return [Pool(node.input[0], node.output[0], algorithm, window._replace(after=(after[0], after[1])))]


def _global_average(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    if not graph.is_map(node.input[0], node.output[0]):
        return None
    _, height, width = graph.shape(node.input[0])
    return [Pool(node.input[0], node.output[0], AVERAGE_OF_ALL, Window((height, width)))]


def _thinning(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    """A Slice of every n-th row and column."""
    values = [graph.constant(name) for name in node.input[1:]]
    if len(values) != 4 or any(value is None for value in values) or not graph.is_map(node.input[0]):
        return None
    starts, ends, axes, steps = (np.asarray(value).tolist() for value in values)
    size = graph.shape(node.input[0])[1:]
    whole = starts == [0, 0] and axes == [2, 3] and min(steps) > 0
    if not whole or any(end < side for end, side in zip(ends, size, strict=True)):
        return None
    after = tuple(((side - 1) // step) * step + 1 - side for side, step in zip(size, steps, strict=True))
    window = Window((1, 1), (steps[0], steps[1]), after=(after[0], after[1]))
    return [Pool(node.input[0], node.output[0], AVERAGE_OF_ALL, window)]


def _function(function: Function) -> Rule:
    def rule(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
        return [Activation(node.input[0], node.output[0], function)] if graph.is_map(node.input[0]) else None

    return rule


def _leaky_relu(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    return _function(leaky_relu(number(node, "alpha", 0.01)))(graph, node)


def _elu(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    return _function(elu(number(node, "alpha", 1.0)))(graph, node)


def _hard_sigmoid(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    return _function(hard_sigmoid(number(node, "alpha", 0.2), number(node, "beta", 0.5)))(graph, node)


def _clip(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    bounds = [graph.constant(name) if name else None for name in node.input[1:]]
    if len(bounds) != 2 or any(bound is None for bound in bounds):
        return None
    low, high = (float(np.asarray(bound)) for bound in bounds)
    return _function(clip(low, high))(graph, node)


def _sum_or_product(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    first, second = node.input
    result, adds = node.output[0], node.op_type == "Add"
    if graph.dims(first) is not None or (
        graph.is_map(first, result) and graph.shape(first) != graph.shape(result)
    ):
        first, second = second, first
    if not graph.is_map(first, result) or graph.shape(first) != graph.shape(result):
        return None
    dims = graph.dims(second)
    if dims is not None:
        if not _is_per_channel(dims, graph.shape(result)[0]):
            return None
        return [Affine(first, result, plus=second) if adds else Affine(first, result, by=second)]
    if not graph.is_map(second):
        return None
    if graph.shape(second) == graph.shape(first):
        return [(Sum if adds else Product)(first, second, result)]
    per_channel = (graph.shape(first)[0], 1, 1)
    return None if adds or graph.shape(second) != per_channel else [Product(first, second, result)]


def _is_per_channel(dims: Shape, channels: int) -> bool:
    """Whether a constant `[channels, 1, 1]`, with or without a 1 before, or one number, is added to a map."""
    if int(np.prod(dims)) == 1:
        return True
    return dims[-3:] == (channels, 1, 1) and all(dim == 1 for dim in dims[:-3])


def _concat(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    if not graph.is_map(*node.input) or attribute(node, "axis") not in (1, -3):
        return None
    return [Joined(tuple(node.input), node.output[0])]


def _pad(graph: GraphValues, node: NodeProto) -> list[Operation] | None:
    pads = graph.constant(node.input[1]) if len(node.input) > 1 else None
    value = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    plain = len(node.input) < 4 and attribute(node, "mode", b"constant") == b"constant"
    if pads is None or value is None or np.any(value) or not plain or not graph.is_map(node.input[0]):
        return None
    numbers = [int(each) for each in pads]
    if len(numbers) != 8 or min(numbers) < 0 or any(numbers[:2]) or any(numbers[4:6]):
        return None
    return [Padded(node.input[0], node.output[0], (numbers[2], numbers[3]))]


RULES: dict[str, Rule] = {
    "Add": _sum_or_product,
    "AveragePool": _pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "Elu": _elu,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function(HARD_SWISH),
    "LeakyRelu": _leaky_relu,
    "MaxPool": _pool,
    "Mul": _sum_or_product,
    "Pad": _pad,
    "Relu": _function(RELU),
    "Sigmoid": _function(SIGMOID),
    "Slice": _thinning,
    "Tanh": _function(TANH),
}
