"""Names in a graph: those of the Keras layers, and each layer's weights its own.

A weight is called `<layer>/<role>`, such as `conv1_conv/kernel`; a node `<layer>/<operation>`; a tensor after
the node that makes it.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping

from onnx import GraphProto, NodeProto, TensorProto

from birdsonnx.model.graph import Graph, attribute

ROLES = (
    "kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "bias",
    "gamma",
    "beta",
    "scale",
    "shift",
    "negative_alpha",
)
"""What is named here; other constants are called after the node that reads them."""

_FACTORS = {
    "BatchNormalization": "scale",
    "GroupNormalization": "gamma",
    "LayerNormalization": "gamma",
    "LayerScale": "gamma",
    "PReLU": "negative_alpha",  # relu(x) - alpha * relu(-x)
}

_TERMS = {
    "BatchNormalization": "shift",
    "Dense": "bias",
    "GroupNormalization": "beta",
    "LayerNormalization": "beta",
}

_WITH_EPSILON = ("GroupNormalization", "LayerNormalization")
"""Layers that add a single number too."""


def name_weights(proto: GraphProto, layers: Mapping[str, str]) -> None:
    """Name nodes, tensors and weights; `layers` gives each Keras layer's class by its name.

    tf2onnx keeps one of several equal constants, such as the zeros and ones that layers start with: here each
    layer gets its own again, since they are trained apart. What tf2onnx adds it numbers from a counter that
    differs between processes; without the numbers the same network gives the same bytes.
    """
    graph = Graph(proto)
    tensors = dict(graph.constants)
    for node in proto.node:
        layer = _layer_behind(node, graph, layers)
        if layer is None:
            continue
        if not node.name.startswith(f"{layer}/"):
            node.name = f"{layer}/{node.op_type}"
        for index, name in enumerate(node.input):
            role = _role(node, index, tensors[name], layers[layer]) if name in tensors else None
            if role is not None:
                _give(node, index, f"{layer}/{role}", tensors)
    read = {name for node in proto.node for name in node.input}
    del proto.initializer[:]
    proto.initializer.extend(tensor for name, tensor in tensors.items() if name in read)
    _name_nodes_once(proto)
    _name_tensors(proto, {f"{layer}/{role}" for layer in layers for role in ROLES})


def _layer_behind(node: NodeProto, graph: Graph, layers: Mapping[str, str]) -> str | None:
    # A convolution that a BatchNorm was folded into has the BatchNorm's scope, its kernel the layer's own.
    weights = [name for name in node.input if name in graph.constants and len(graph.consumers[name]) == 1]
    found = [layer_of(scope, layers) for scope in (*weights, node.name, *node.output)]
    known = [layer for layer in found if layer is not None]
    if node.op_type == "Conv":
        known.sort(key=lambda layer: layers[layer] == "BatchNormalization")
    return known[0] if known else None


def _role(node: NodeProto, index: int, tensor: TensorProto, kind: str) -> str | None:
    """What a constant is to the layer of this class that the node belongs to."""
    match node.op_type, index:
        case "Conv" | "ConvTranspose", 1 if kind.startswith("Separable"):
            pointwise = all(side == 1 for side in tensor.dims[2:]) and attribute(node, "group", 1) == 1
            return "pointwise_kernel" if pointwise else "depthwise_kernel"
        case "Conv" | "ConvTranspose" | "MatMul" | "Gemm", 1:
            return "kernel"
        case "Conv" | "ConvTranspose" | "Gemm", 2:
            return "bias"
        case "Mul", _:
            return _FACTORS.get(kind)
        case "Add", _ if kind not in _WITH_EPSILON or math.prod(tensor.dims) > 1:
            return _TERMS.get(kind)
    return None


def _give(node: NodeProto, index: int, wanted: str, tensors: dict[str, TensorProto]) -> None:
    """Let a node read its constant by another name, unless that is a different constant's."""
    tensor = TensorProto()
    tensor.CopyFrom(tensors[node.input[index]])
    tensor.name = wanted
    if tensors.setdefault(wanted, tensor) == tensor:  # the second call of a layer reads what the first reads
        node.input[index] = wanted


def _name_nodes_once(proto: GraphProto) -> None:
    used: set[str] = set()
    for node in proto.node:
        name = re.sub(r"__\d+", "", node.name) or node.op_type
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        node.name = next(free for free in itertools.chain([name], numbered) if free not in used)
        used.add(node.name)


def _name_tensors(proto: GraphProto, keep: set[str]) -> None:
    """Name tensors after their node, and constants, but those in `keep`, after the first node that reads
    them."""
    fixed = {value.name for value in (*proto.input, *proto.output)} | keep
    constants = {tensor.name for tensor in proto.initializer} - fixed
    names: dict[str, str] = {}
    for node in proto.node:
        for index, name in enumerate(node.input):
            if name in constants:
                names.setdefault(name, f"{node.name}/input_{index}")
            node.input[index] = names.get(name, name)
        for index, name in enumerate(node.output):
            if name and name not in fixed:
                names[name] = f"{node.name}:{index}"
                node.output[index] = names[name]
    for tensor in proto.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def layer_of(scope: str, layers: Iterable[str]) -> str | None:
    """The Keras layer that a TensorFlow scope such as `model_1/conv1_conv_1/convolution` belongs to.

    Keras 3 adds the number of the call (`_1`) to the names in a traced graph, so `dense_1` there is the
    first call of `dense`; only where no such layer exists it is a layer's own name.
    """
    known = layers if isinstance(layers, set | dict) else set(layers)
    for part in re.split(r"[/:]", scope):
        stripped = re.sub(r"_\d+$", "", part)
        if stripped != part and stripped in known:
            return stripped
        if part in known:
            return part
    return None
