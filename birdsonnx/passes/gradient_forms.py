"""Forms of a graph's operations whose gradients ONNX Runtime has, and the refusal of those that have none.

Each rewrite keeps the values, and touches a copy that is trained, never the model that is saved.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ConfigError
from birdsonnx.model.graph import (
    Array,
    Graph,
    attribute,
    integers,
    number,
    pads_are_given,
    set_attribute,
    set_constant,
    shapes_behind_batch,
)
from birdsonnx.model.weight_names import layer_of_node
from birdsonnx.passes.batch_norm import channel_affine
from birdsonnx.passes.strides import is_thinning

Shapes = Mapping[str, tuple[int, ...]]
"""Dimensions behind the batch, by tensor."""

DIFFERENTIABLE = frozenset(
    [
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Dropout",
        "Erf",
        "Exp",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "MatMul",
        "MaxPool",
        "Mul",
        "Neg",
        "Pad",
        "Pow",
        "Reciprocal",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operations whose gradients were compared with finite differences; `_in_a_form` says in which forms. A
Dropout is a product with a mask then. No others: some gradients of the runtime end the process (AveragePool),
some do not exist (BatchNormalization, Elu, HardSigmoid, Resize, Sum …)."""


def prepare(model: ModelProto, weights: Mapping[str, Any], layers: Collection[str], where: str) -> None:
    """Give every operation behind the first of `weights` a form that has a gradient.

    Raises:
        ConfigError: there is none; names the layer and the operation.
    """
    graph = model.graph
    shapes = shapes_behind_batch(model)
    pads_as_given(graph, shapes)
    stride_before_pointwise(graph)
    behind = set(weights)
    for node in graph.node:
        if behind.intersection(node.input):
            behind.update(node.output)
    thinning_as_slice(graph, behind)
    batch_norm_as_affine(graph, behind)
    average_pool_as_convolution(graph, behind, shapes)
    largest_of_map_as_max_pool(graph, behind, shapes)
    activations_as_arithmetic(graph, behind)
    view = Graph(graph)
    for node in graph.node:
        if not behind.intersection(node.input):
            continue
        known = node.op_type in DIFFERENTIABLE
        if not known or not _in_a_form(node, view, behind):
            layer = layer_of_node(node.name, layers) or node.name.split("/")[0]
            raise ConfigError(
                f"{where}: layer {layer!r} is a {node.op_type}, which has no gradient in ONNX Runtime"
                f"{' in this form' if known else ''}, and layers in front of it are to be trained; choose "
                'only layers behind it with "birdsonnx": {"trainable": [...]}'
            )


def _in_a_form(node: NodeProto, graph: Graph, behind: Collection[str]) -> bool:
    """Whether the gradient of an operation is right for a node's attributes and constants. Elsewhere it is
    wrong without a word (Conv, MaxPool, Split) or an error of the runtime (the others)."""
    match node.op_type:
        case "Cast":
            return bool(attribute(node, "to") == TensorProto.FLOAT)
        case "Conv":
            return pads_are_given(node)
        case "MatMul":
            return all(len(graph.constants[name].dims) > 1 for name in node.input if name in graph.constants)
        case "MaxPool":
            return not attribute(node, "storage_order", 0)
        case "Pad":
            return attribute(node, "mode", b"constant") == b"constant" and len(node.input) < 4
        case "Pow":
            return node.input[1] not in behind
        case "ReduceSum":
            return not attribute(node, "noop_with_empty_axes", 0)
        case "Slice":
            steps = graph.constant(node.input[4]) if len(node.input) > 4 else np.ones(1)
            return steps is not None and bool((steps > 0).all())
        case "Split":
            return all(name in graph.consumers for name in node.output)
        case "Transpose":
            return attribute(node, "perm") is not None
    return True


def stride_before_pointwise(graph: GraphProto) -> int:
    """A 1 x 1 convolution with strides looks at a part of its input only: take that part first, once for
    all convolutions of one tensor. The convolution and its gradients become plain matrix products, and
    features kept at that place need a quarter of the space. Returns how many."""
    kept: dict[tuple[str, tuple[int, ...]], str] = {}
    nodes: list[NodeProto] = []
    moved = 0
    for node in graph.node:
        strides = tuple(integers(node, "strides", 1))
        if node.op_type == "Conv" and _is_pointwise(node) and max(strides) > 1:
            source = node.input[0]
            if (source, strides) not in kept:
                name = f"{source}/every_{'_'.join(map(str, strides))}"
                kept[source, strides] = name
                nodes.append(_every_nth(graph, source, name, strides))
            copy = _copy(node)
            copy.input[0] = kept[source, strides]
            set_attribute(copy, "strides", [1, 1])
            node = copy
            moved += 1
        nodes.append(node)
    nodes = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return moved


def thinning_as_slice(graph: GraphProto, behind: set[str]) -> int:
    """A 1 x 1 MaxPool as a Slice, whose gradient needs no indices. Returns how many."""
    thinning = [node for node in graph.node if is_thinning(node) and behind.intersection(node.input)]
    for node in thinning:
        strides = integers(node, "strides", 1)
        node.CopyFrom(_every_nth(graph, node.input[0], node.output[0], strides))
    return len(thinning)


def _every_nth(graph: GraphProto, source: str, name: str, strides: Sequence[int]) -> NodeProto:
    """The node that takes every n-th row and column of a tensor `[batch, channels, height, width]`."""
    bounds = {"starts": (0, 0), "ends": (2**31 - 1,) * 2, "axes": (2, 3), "steps": tuple(strides)}
    for role, values in bounds.items():
        set_constant(graph, f"{name}/{role}", np.array(values, np.int64))
    return helper.make_node("Slice", [source, *(f"{name}/{role}" for role in bounds)], [name], name=name)


def batch_norm_as_affine(graph: GraphProto, behind: set[str]) -> int:
    """BatchNormalization in inference mode as Mul and Add with constants. Returns how many."""
    view = Graph(graph)
    rewritten = 0
    for position, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "BatchNormalization" or node.input[0] not in behind:
            continue
        affine = channel_affine(view, node, node.input[0])
        if affine is None:
            continue
        scale, shift = (value.astype(np.float32).reshape(1, -1, 1, 1) for value in affine)
        scaled = f"{node.output[0]}/scaled"
        set_constant(graph, f"{scaled}/by", scale)
        set_constant(graph, f"{node.output[0]}/shift", shift)
        behind.add(scaled)
        data, output, name = node.input[0], node.output[0], node.name
        node.CopyFrom(helper.make_node("Add", [scaled, f"{output}/shift"], [output], name=name))
        graph.node.insert(
            position, helper.make_node("Mul", [data, f"{scaled}/by"], [scaled], name=f"{name}/scale")
        )
        rewritten += 1
    return rewritten


def pads_as_given(graph: GraphProto, shapes: Shapes) -> int:
    """Padding that is computed from the input's size, as ONNX defines it for `auto_pad`, as numbers. Returns
    how many."""
    constants = Graph(graph).constants
    given = 0
    for node in graph.node:
        mode, size = attribute(node, "auto_pad"), shapes.get(node.input[0], ())[1:]
        if node.op_type not in ("Conv", "MaxPool", "AveragePool") or len(size) != 2:
            continue
        if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
            continue
        kernel = integers(node, "kernel_shape", 1)
        if node.op_type == "Conv" and node.input[1] in constants:
            kernel = list(constants[node.input[1]].dims[2:])
        begin, end = [], []
        for side, window, stride, dilation in zip(
            size, kernel, integers(node, "strides", 1), integers(node, "dilations", 1), strict=True
        ):
            total = max((-(-side // stride) - 1) * stride + (window - 1) * dilation + 1 - side, 0)
            begin.append(total // 2 if mode == b"SAME_UPPER" else total - total // 2)
            end.append(total - begin[-1])
        set_attribute(node, "auto_pad", "NOTSET")
        set_attribute(node, "pads", [*begin, *end])
        given += 1
    return given


def average_pool_as_convolution(graph: GraphProto, behind: set[str], shapes: Shapes) -> int:
    """AveragePool as a depthwise convolution with a constant kernel. Where padding does not count, windows at
    the border have fewer values: a product with a constant map makes their means of the sums. Returns how
    many."""
    rewritten = 0
    for position, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "AveragePool" or node.input[0] not in behind:
            continue
        kernel, pads, strides = (
            integers(node, "kernel_shape", 1),
            integers(node, "pads", 0, 4),
            integers(node, "strides", 1),
        )
        shape = shapes.get(node.input[0], ())
        dilated = max(integers(node, "dilations", 1)) > 1
        if len(shape) != 3 or not pads_are_given(node) or attribute(node, "ceil_mode", 0) or dilated:
            continue
        data, output = node.input[0], node.output[0]
        alike = not any(pads) or attribute(node, "count_include_pad", 0) == 1
        summed = output if alike else f"{output}/sums"
        weight = 1 / math.prod(kernel) if alike else 1.0
        set_constant(graph, f"{output}/mean", np.full((shape[0], 1, *kernel), weight, np.float32))
        if not alike:
            set_constant(graph, f"{output}/share", 1 / _values_per_window(shape[1:], kernel, pads, strides))
            behind.add(summed)
            graph.node.insert(
                position + 1,
                helper.make_node("Mul", [summed, f"{output}/share"], [output], name=f"{node.name}/share"),
            )
        node.CopyFrom(
            helper.make_node(
                "Conv",
                [data, f"{output}/mean"],
                [summed],
                name=node.name,
                kernel_shape=kernel,
                pads=pads,
                strides=strides,
                group=shape[0],
            )
        )
        rewritten += 1
    return rewritten


def _values_per_window(
    size: Sequence[int], kernel: Sequence[int], pads: Sequence[int], strides: Sequence[int]
) -> Array:
    """How many values of a map, not of its padding, each window sees: float32 `[1, 1, height, width]`."""
    counts = []
    for axis in range(2):
        padded = np.pad(np.ones(size[axis], np.float32), (pads[axis], pads[axis + 2]))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel[axis])[:: strides[axis]]
        counts.append(windows.sum(axis=1))
    across: Array = np.outer(*counts)
    return across[None, None]


def largest_of_map_as_max_pool(graph: GraphProto, behind: set[str], shapes: Shapes) -> int:
    """The maximum of each whole map, for which there is no gradient, as a MaxPool. Returns how many."""
    view = Graph(graph)
    rewritten = 0
    for position, node in reversed(list(enumerate(graph.node))):
        shape = shapes.get(node.input[0], ()) if node.input else ()
        if node.op_type not in ("GlobalMaxPool", "ReduceMax") or len(shape) != 3:
            continue
        axes: Any = attribute(node, "axes", (2, 3))
        if len(node.input) > 1:
            axes = view.constant(node.input[1])
        if node.input[0] not in behind or axes is None or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
            continue
        data, output = node.input[0], node.output[0]
        keeps = node.op_type == "GlobalMaxPool" or attribute(node, "keepdims", 1)
        pooled = output if keeps else f"{output}/map"
        if not keeps:
            set_constant(graph, f"{output}/shape", np.array([-1, shape[0]], np.int64))
            behind.add(pooled)
            flat = helper.make_node(
                "Reshape", [pooled, f"{output}/shape"], [output], name=f"{node.name}/flat"
            )
            graph.node.insert(position + 1, flat)
        node.CopyFrom(
            helper.make_node("MaxPool", [data], [pooled], name=node.name, kernel_shape=list(shape[1:]))
        )
        rewritten += 1
    return rewritten


def activations_as_arithmetic(graph: GraphProto, behind: set[str]) -> int:
    """Elu, Selu, Softplus, HardSigmoid and HardSwish, written out by their definitions in the ONNX standard.
    Returns how many."""
    rewritten = 0
    for position, node in reversed(list(enumerate(graph.node))):
        if node.op_type not in _WRITTEN_OUT or node.input[0] not in behind:
            continue
        form = _Form(graph, node)
        _WRITTEN_OUT[node.op_type](form, node)
        behind.update(name for made in form.nodes for name in made.output)
        graph.node.remove(node)
        for made in reversed(form.nodes):
            graph.node.insert(position, made)
        rewritten += 1
    return rewritten


class _Form:
    """Nodes in place of one; each call adds an operation and gives its result's name."""

    def __init__(self, graph: GraphProto, node: NodeProto) -> None:
        self.x: str = node.input[0]
        self.nodes: list[NodeProto] = []
        self._graph, self._name, self._output = graph, node.name, node.output[0]

    def __call__(self, operation: str, *inputs: str | float, last: bool = False) -> str:
        name = f"{self._output}/{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._number(value) for value in inputs]
        result = self._output if last else name
        self.nodes.append(
            helper.make_node(operation, names, [result], name=f"{self._name}/{len(self.nodes)}")
        )
        return result

    def _number(self, value: float) -> str:
        name = f"{self._output}/constant_{value:g}"
        set_constant(self._graph, name, np.array(value, np.float32))
        return name


def _elu(form: _Form, alpha: float, scale: float = 1.0) -> None:
    # The gradient of Clip is 1 at its limit, that of Relu 0 at 0: together 1, as of x.
    below = form("Sub", form("Exp", form("Clip", form.x, "", 0.0)), 1.0)
    above = form("Mul", form("Relu", form.x), scale)
    form("Add", above, form("Mul", below, scale * alpha), last=True)


def _softplus(form: _Form) -> None:
    # log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which overflows nowhere; -|x| = 2 min(x, 0) - x.
    away = form("Sub", form("Mul", form("Clip", form.x, "", 0.0), 2.0), form.x)
    form("Add", form("Relu", form.x), form("Log", form("Add", form("Exp", away), 1.0)), last=True)


def _hard_sigmoid(form: _Form, alpha: float, beta: float, last: bool = True) -> str:
    return form("Clip", form("Add", form("Mul", form.x, alpha), beta), 0.0, 1.0, last=last)


_WRITTEN_OUT: dict[str, Callable[[_Form, NodeProto], Any]] = {
    "Elu": lambda form, node: _elu(form, number(node, "alpha", 1.0)),
    "Selu": lambda form, node: _elu(
        form, number(node, "alpha", 1.6732631921768188), number(node, "gamma", 1.0507010221481323)
    ),
    "Softplus": lambda form, _: _softplus(form),
    "HardSigmoid": lambda form, node: _hard_sigmoid(
        form, number(node, "alpha", 0.2), number(node, "beta", 0.5)
    ),
    "HardSwish": lambda form, _: form("Mul", form.x, _hard_sigmoid(form, 1 / 6, 0.5, last=False), last=True),
}


def _is_pointwise(node: NodeProto) -> bool:
    kernel = attribute(node, "kernel_shape")
    return kernel == [1, 1] and not any(integers(node, "pads", 0, 4)) and pads_are_given(node)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
