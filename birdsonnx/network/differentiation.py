"""Forms of a graph's operations whose gradients ONNX Runtime has, and the refusal of those that have none.

Each rewrite keeps the values, and touches a copy that is trained, never the model that is saved.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ConfigError
from birdsonnx.network.graph import (
    Array,
    Graph,
    attribute,
    integers,
    pads_are_given,
    set_attribute,
    set_constant,
)
from birdsonnx.network.naming import layer_of
from birdsonnx.network.rewrites import channel_affine
from birdsonnx.network.strides import is_thinning

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


def prepare(graph: GraphProto, weights: Mapping[str, Any], layers: Collection[str], where: str) -> None:
    """Give every operation behind the first of `weights` a form that has a gradient.

    Raises:
        ConfigError: there is none; names the layer and the operation.
    """
    stride_before_pointwise(graph)
    behind = set(weights)
    for node in graph.node:
        if behind.intersection(node.input):
            behind.update(node.output)
    thinning_as_slice(graph, behind)
    batch_norm_as_affine(graph, behind)
    average_pool_as_convolution(graph, behind)
    view = Graph(graph)
    for node in graph.node:
        if not behind.intersection(node.input):
            continue
        known = node.op_type in DIFFERENTIABLE
        if not known or not _in_a_form(node, view, behind):
            layer = layer_of(node.name, layers) or node.name.split("/")[0]
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


def average_pool_as_convolution(graph: GraphProto, behind: set[str]) -> int:
    """AveragePool as a depthwise convolution with a constant kernel, where the channels are known and padding
    does not change the divisor. Returns how many."""
    view = Graph(graph)
    rewritten = 0
    for node in graph.node:
        if node.op_type != "AveragePool" or node.input[0] not in behind:
            continue
        kernel, pads = integers(node, "kernel_shape", 1), integers(node, "pads", 0, 4)
        channels = _channels(view, node.input[0])
        whole = not any(pads) or attribute(node, "count_include_pad", 0) == 1
        plain = pads_are_given(node) and not attribute(node, "ceil_mode", 0)
        if channels is None or len(kernel) != 2 or not (whole and plain):
            continue
        name = f"{node.output[0]}/mean"
        mean: Array = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
        set_constant(graph, name, mean)
        node.CopyFrom(
            helper.make_node(
                "Conv",
                [node.input[0], name],
                [node.output[0]],
                name=node.name,
                kernel_shape=kernel,
                pads=pads,
                strides=integers(node, "strides", 1),
                group=channels,
            )
        )
        rewritten += 1
    return rewritten


def _channels(graph: Graph, tensor: str) -> int | None:
    """The channels of a tensor, from the convolution it comes from."""
    while tensor in graph.producers:
        node = graph.producers[tensor]
        if node.op_type == "Conv":
            kernel = graph.constants.get(node.input[1])
            return None if kernel is None else int(kernel.dims[0])
        if node.op_type == "Concat" and attribute(node, "axis") == 1:
            parts = [_channels(graph, name) for name in node.input]
            return None if any(part is None for part in parts) else sum(part or 0 for part in parts)
        if node.op_type not in (
            "Add",
            "AveragePool",
            "BatchNormalization",
            "Clip",
            "Dropout",
            "MaxPool",
            "Mul",
            "Pad",
            "Relu",
        ):
            return None
        tensor = node.input[0] if node.input[0] not in graph.constants else node.input[1]
    return None


def _is_pointwise(node: NodeProto) -> bool:
    kernel = attribute(node, "kernel_shape")
    return kernel == [1, 1] and not any(integers(node, "pads", 0, 4)) and pads_are_given(node)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
