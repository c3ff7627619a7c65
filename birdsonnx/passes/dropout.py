"""Dropout: which values of a network are dropped in training.

In the file it is an ONNX Dropout node in inference mode, which every runtime takes for what it is there,
nothing, and removes. Its rate and the shape of its masks are in the metadata. A graph that is trained
multiplies by masks instead, which are further inputs of it.
"""

from collections.abc import Collection, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from birdsonnx.model.graph import Graph, redirect, remove
from birdsonnx.model.metadata import Dropout


def take_out(graph: GraphProto, nodes: Sequence[NodeProto] | None = None) -> int:
    """Remove Dropout nodes, all or these; what is predicted stays the same. Returns how many."""
    if nodes is None:
        nodes = [node for node in graph.node if node.op_type == "Dropout"]
    for node in nodes:
        redirect(graph, node.output[0], node.input[0])
    remove(graph, nodes)
    return len(nodes)


def mask_of(dropout: Dropout) -> str:
    """The name of the graph input that takes its masks, float32 `[batch, *shape]`."""
    return f"{dropout.node}/mask"


def masked(model: ModelProto, dropouts: Sequence[Dropout]) -> ModelProto:
    """A copy of a model that multiplies by masks where it has Dropout nodes."""
    proto = ModelProto()
    proto.CopyFrom(model)
    nodes = {node.name: node for node in proto.graph.node}
    for dropout in dropouts:
        node, mask = nodes[dropout.node], mask_of(dropout)
        node.CopyFrom(
            helper.make_node("Mul", [node.input[0], mask], [node.output[0]], name=f"{node.name}/Mul")
        )
        proto.graph.input.append(
            helper.make_tensor_value_info(mask, TensorProto.FLOAT, ["batch", *dropout.shape])
        )
    return proto


def acting(graph: GraphProto, trained: Collection[str], learned: Collection[str]) -> list[NodeProto]:
    """The Dropout nodes that no frozen layer follows: those act in training.

    What stands in front of a frozen layer belongs to the frozen part, which runs as in prediction, as a
    frozen BatchNorm does: its features are computed once and kept.

    Args:
        graph: of the whole network.
        trained: tensors behind a trained weight.
        learned: operations that hold a layer's weights.
    """
    constants = Graph(graph).constants
    read_by_frozen: set[str] = set()
    found = []
    for node in reversed(graph.node):
        layer = node.op_type in learned and any(name in constants for name in node.input)
        frozen = layer and node.output[0] not in trained
        if frozen or read_by_frozen.intersection(node.output):
            read_by_frozen.update(node.input)
        elif node.op_type == "Dropout":
            found.append(node)
    return found[::-1]
