"""What the weights of a layer are called in the graph: the layer's path, then what they are to it.

`conv1/kernel`, `left/conv1/bias`, `attention/query/kernel`; a BatchNorm that is folded into no convolution
has a `scale` and a `shift`. Other constants, such as the epsilon of a norm, are called after the node that
reads them, `norm/Add/input_1`.
"""

import re
from collections.abc import Collection

from onnx import GraphProto, TensorProto

STATISTICS = frozenset(("mean", "deviation", "moving_mean", "moving_variance"))
"""Roles of what a layer holds and training never changes."""
_CONSTANT = re.compile(r"(^|/)input_\d+$")
"""The end of the name of a constant that is no weight."""


def layer_of(name: str, layers: Collection[str]) -> str | None:
    """The layer that a weight such as `conv1/kernel` or a node such as `conv1/Conv` belongs to, or None.

    It is the longest of these layers' paths that the name begins with: a layer of a nested model has the
    model's name in its own, `backbone/conv1`.
    """
    scopes = name.split("/")
    paths = ("/".join(scopes[:end]) for end in range(len(scopes) - 1, 0, -1))
    return next((path for path in paths if path in layers), None)


def scope_of(name: str) -> str:
    """What a node, or a tensor that it makes, is called after: the path of its layer, with weights or
    without."""
    node = name.partition(":")[0]
    return node.rpartition("/")[0] or node


def arrays_by_layer(graph: GraphProto, layers: Collection[str]) -> dict[str, list[str]]:
    """The names of the weights and statistics that each of these layers has in the graph, in the order in
    which nodes read them. A layer that has none, as a BatchNorm that was folded, is not in it."""
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found: dict[str, dict[str, None]] = {}
    for node in graph.node:
        for name in node.input:
            if name in floats and not _CONSTANT.search(name):
                layer = layer_of(name, layers)
                if layer is not None:
                    found.setdefault(layer, {})[name] = None
    return {layer: list(names) for layer, names in found.items()}


def weights_by_layer(graph: GraphProto, layers: Collection[str]) -> dict[str, list[str]]:
    """As `arrays_by_layer`, without statistics: what training changes."""
    held = arrays_by_layer(graph, layers)
    kept = {layer: [name for name in names if not is_statistic(name)] for layer, names in held.items()}
    return {layer: names for layer, names in kept.items() if names}


def is_statistic(name: str) -> bool:
    """Whether an array is one that training never changes."""
    return name.rpartition("/")[2] in STATISTICS
