"""The part of a graph that only its output `known` needs."""

from onnx import GraphProto, ModelProto, NodeProto

from birdsonnx.model.edits import copy_of, drop_unused, set_outputs
from birdsonnx.model.metadata import KNOWN, OUTPUT


def own_nodes(graph: GraphProto) -> list[NodeProto]:
    """The nodes that lead to `known` and not to `log_probs`, in the order of the graph."""
    shared = _leading_to(graph, OUTPUT)
    return [node for node in _leading_to(graph, KNOWN) if not any(node is other for other in shared)]


def without_known(proto: ModelProto) -> ModelProto:
    """A copy without the output `known` and what only that needs; `log_probs` is computed as before."""
    copy = copy_of(proto)
    set_outputs(copy.graph, [each for each in copy.graph.output if each.name != KNOWN])
    drop_unused(copy.graph)
    return copy


def _leading_to(graph: GraphProto, output: str) -> list[NodeProto]:
    needed = {output}
    found = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            found.append(node)
    return found[::-1]
