"""The nodes of a trunk as operations that oneDNN has, fused where a kernel does several at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from birdsonnx.model.graph import Graph, ancestors, shapes_per_photo
from birdsonnx.model.weight_names import scope_of
from birdsonnx.onednn.fusing import fused, readers_of
from birdsonnx.onednn.operations.affine import Affine
from birdsonnx.onednn.operations.convolution import Convolution
from birdsonnx.onednn.operations.operation import Operation
from birdsonnx.onednn.recording import Values
from birdsonnx.onednn.rules import RULES, GraphValues
from birdsonnx.onednn.trunk import Trunk, given_to, trunk_of

Floats = npt.NDArray[np.float32]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TrainedTrunk:
    """A trunk as operations."""

    trunk: Trunk
    operations: tuple[Operation, ...]
    values: Values
    given: tuple[str, ...]
    """The frozen values that it reads."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Of all its values, for one photo."""
        return self.values.shapes

    @property
    def kernels(self) -> frozenset[str]:
        """The weights of its convolutions."""
        return frozenset(each.kernel for each in self.operations if isinstance(each, Convolution))

    def as_given(self, name: str, value: Floats) -> Floats:
        """A frozen value as the trunk wants it: one number per photo, a mask, becomes one per channel."""
        return np.ascontiguousarray(np.broadcast_to(value, (len(value), *self.shapes[name])), np.float32)


NO_TRUNK = "what is trained has no convolutions"


class NotLowered(Exception):
    """An operation has no form here; the text names the layer and the operation."""


def trained_trunk(model: ModelProto, weights: Sequence[str], output: str | None = None) -> TrainedTrunk:
    """The trunk of a network, lowered.

    Args:
        model: the trained part, with masks as inputs.
        weights: names of the trained constants.
        output: of the model; default: its first.

    Raises:
        NotLowered: there is no trunk, or one of its nodes has no form here, or a weight has no gradient.
    """
    shapes = shapes_per_photo(model)
    trunk = trunk_of(model, weights, shapes, output)
    if trunk is None:
        raise NotLowered(NO_TRUNK)
    leading = ancestors(model.graph, [output or model.graph.output[0].name])
    idle = set(weights).difference(name for node in leading for name in node.input)
    if idle:
        raise NotLowered(f"layer {scope_of(min(idle))!r} is trained and has no way to the loss")
    given = given_to(trunk, model)
    for node in trunk.nodes:
        for name in node.input if node.op_type == "Mul" else ():
            if name in given and shapes.get(name) == (1, 1, 1):
                shapes[name] = (shapes[node.output[0]][0], 1, 1)
    elsewhere = {name for node in _others(model, trunk) for name in node.input}
    for name in trunk.weights:
        if name in elsewhere:
            raise NotLowered(f"layer {scope_of(name)!r} is also used after the convolutions")
    graph = Graph(model.graph)
    operations = tuple(lowered(trunk.nodes, graph, shapes, trunk.result))
    for each in operations:
        for name in each.weights if isinstance(each, Affine) else ():
            if name in trunk.weights and np.prod(graph.constants[name].dims) != shapes[each.result][0]:
                raise NotLowered(f"layer {scope_of(name)!r} trains one number for all channels")
    saved = {name for each in operations for name in each.saved}
    values = Values(shapes, trunk.reached, readers_of(operations, trunk.result), saved)
    return TrainedTrunk(trunk, operations, values, tuple(given))


def _others(model: ModelProto, trunk: Trunk) -> list[NodeProto]:
    names = {node.output[0] for node in trunk.nodes}
    return [node for node in model.graph.node if node.output[0] not in names]


def lowered(
    nodes: Sequence[NodeProto], graph: Graph, shapes: Mapping[str, Shape], result: str
) -> list[Operation]:
    """The operations of a trunk whose last value is `result`.

    Raises:
        NotLowered: one of the nodes has no form here.
    """
    values = GraphValues(graph, shapes)
    operations: list[Operation] = []
    for node in nodes:
        rule = RULES.get(node.op_type)
        made = None if rule is None else rule(values, node)
        if made is None:
            raise NotLowered(
                f"layer {scope_of(node.name)!r} is a {node.op_type} of a form that oneDNN does not train here"
            )
        operations += made
    return fused(operations, result)
