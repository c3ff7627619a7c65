"""Dropout: which values of a network are dropped in training.

In the file it is an ONNX Dropout node in inference mode, whose result is its input; every runtime removes it.
Its rate and the shape of its masks are in the metadata. A graph that is trained multiplies by masks instead,
which are further inputs of it: `y = x * mask`, where a mask holds 0 for what is dropped and `1 / (1 - rate)`
for what is kept.
"""

from collections.abc import Collection, Iterator, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from birdsonnx.model.edits import Editor, copy_of
from birdsonnx.model.graph import Graph
from birdsonnx.model.metadata import Dropout
from birdsonnx.passes.rewriting import Report, apply


class TakeOut:
    """Looks at every Dropout node but those to `keep`, by name."""

    done = "dropout taken out"
    subject = "dropout"

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = frozenset(keep)

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (node for node in graph.nodes() if node.op_type == "Dropout" and node.name not in self._keep)

    def check(self, graph: Editor, node: NodeProto) -> str | None:
        return "it makes an output of the graph" if node.output[0] in graph.outputs else None

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        graph.bypass(node)
        return 1


class Masked:
    """Looks at the nodes of these Dropouts; each mask becomes an input of the graph."""

    done = "dropout as a product"
    subject = "dropout"

    def __init__(self, dropouts: Sequence[Dropout]) -> None:
        self._dropouts = dropouts

    def candidates(self, graph: Editor) -> Iterator[tuple[NodeProto, Dropout]]:
        nodes = {node.name: node for node in graph.nodes()}
        return ((nodes[dropout.node], dropout) for dropout in self._dropouts)

    def check(self, _: Editor, place: tuple[NodeProto, Dropout]) -> str | None:
        node, _dropout = place
        return None if node.op_type == "Dropout" else f"it is a {node.op_type}"

    def rewrite(self, graph: Editor, place: tuple[NodeProto, Dropout]) -> int:
        node, dropout = place
        mask = mask_of(dropout)
        product = helper.make_node("Mul", [node.input[0], mask], [node.output[0]], name=f"{node.name}/Mul")
        graph.replace(node, product)
        shape = ["batch", *dropout.shape]
        graph.proto.input.append(helper.make_tensor_value_info(mask, TensorProto.FLOAT, shape))
        return 1


def take_out(graph: GraphProto, keep: Collection[str] = ()) -> Report:
    """Remove Dropout nodes, all but some by name; what is predicted stays the same."""
    return apply(TakeOut(keep), graph)


def mask_of(dropout: Dropout) -> str:
    """The name of the graph input that takes its masks, float32 `[batch, *shape]`."""
    return f"{dropout.node}/mask"


def masked(model: ModelProto, dropouts: Sequence[Dropout]) -> ModelProto:
    """A copy of a model that multiplies by masks where it has Dropout nodes."""
    proto = copy_of(model)
    apply(Masked(dropouts), proto.graph)
    return proto


def acting(graph: GraphProto, trained: Collection[str], learned: Collection[str]) -> list[NodeProto]:
    """The Dropout nodes that no frozen layer follows: those act in training.

    What comes before a frozen layer belongs to the frozen part, which runs as in prediction, as a frozen
    BatchNorm does: its features are computed once and kept.

    Args:
        graph: of the whole network.
        trained: tensors that depend on a trained weight.
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
