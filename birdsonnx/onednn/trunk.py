"""Which part of a trained network is its trunk: the maps, up to where they become a vector.

What comes before it is frozen; what comes after it, from the last mean over a map on, is small and decides
how exact the loss is. ONNX Runtime computes both, in float32.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.model.edits import copy_of, drop_unused, set_inputs, set_nodes, set_outputs
from birdsonnx.model.graph import ancestors, depending_on

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Trunk:
    """Nodes in order, from frozen values to one map."""

    nodes: tuple[NodeProto, ...]
    result: str
    """The last map, `[channels, height, width]` of each photo."""
    reached: frozenset[str]
    """All values that depend on a trained weight, and these."""
    weights: tuple[str, ...]
    """Those trained ones that it reads."""

    @property
    def inner(self) -> frozenset[str]:
        """What it computes and reads itself."""
        return frozenset(name for node in self.nodes for name in node.output if name != self.result)


def trunk_of(
    model: ModelProto, weights: Iterable[str], shapes: Mapping[str, Shape], output: str | None = None
) -> Trunk | None:
    """The trunk of a network, or None where no map depends on a trained weight.

    Args:
        model: to log-probabilities, or to a loss.
        weights: names of the trained constants.
        shapes: of one photo's values.
        output: of the model; default: its first.
    """
    graph, weights = model.graph, tuple(weights)
    reached = depending_on(graph, weights)
    needed = {output or graph.output[0].name}
    result = None
    for node in reversed(graph.node):
        if not needed.intersection(node.output):
            continue
        if len(needed) == 1 and _is_map(shapes.get(node.output[0], ())):
            result = node.output[0]
            break
        needed.difference_update(node.output)
        needed.update(name for name in node.input if name in reached and name not in weights)
    if result is None:
        return None
    nodes = tuple(node for node in ancestors(graph, [result]) if not reached.isdisjoint(node.output))
    read = {name for node in nodes for name in node.input}
    return Trunk(nodes, result, frozenset(reached), tuple(name for name in weights if name in read))


def _is_map(shape: Shape) -> bool:
    return len(shape) == 3 and shape[1] * shape[2] > 1


def before(model: ModelProto, values: Iterable[str]) -> ModelProto | None:
    """What computes these frozen values from the model's inputs; None where they are inputs themselves."""
    proto = copy_of(model)
    made = {name for node in proto.graph.node for name in node.output}
    wanted = [name for name in values if name in made]
    if not wanted:
        return None
    set_outputs(proto.graph, [helper.make_empty_tensor_value_info(name) for name in wanted])
    drop_unused(proto.graph)
    read = {name for node in proto.graph.node for name in node.input}
    set_inputs(proto.graph, [value for value in list(proto.graph.input) if value.name in read])
    return proto


def after(model: ModelProto, trunk: Trunk, shape: Shape) -> ModelProto:
    """What computes the model's outputs from the trunk's result, float32 of this shape for each photo."""
    proto = copy_of(model)
    set_nodes(proto.graph, [node for node in list(proto.graph.node) if trunk.result not in node.output])
    drop_unused(proto.graph)
    read = {name for node in proto.graph.node for name in node.input}
    result = helper.make_tensor_value_info(trunk.result, TensorProto.FLOAT, ["batch", *shape])
    set_inputs(proto.graph, [*(value for value in list(proto.graph.input) if value.name in read), result])
    return proto


def given_to(trunk: Trunk, model: ModelProto) -> list[str]:
    """The frozen values that a trunk reads."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = dict.fromkeys(name for node in trunk.nodes for name in node.input if name)
    return [name for name in names if name not in constants and name not in trunk.reached]
