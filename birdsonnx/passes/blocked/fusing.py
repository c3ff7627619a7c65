"""Sums and activations inside the blocked convolution before them.

The runtime's blocked convolution computes `activation(W * x + b + z)` in one go: `z`, a fourth input, is what
an Add or Sum adds to its result, and the activation is an attribute. An Add after the activation is none of
its.
"""

from collections.abc import Collection, Iterator

from onnx import NodeProto

from birdsonnx.model.edits import Editor, copy_of, set_attribute
from birdsonnx.model.graph import Graph, attribute
from birdsonnx.passes.blocked.block_size import BLOCKED_DOMAIN

SUMMAND = 3
"""Index of the input that is added."""

SEVERAL = "three summands or more, or one of them twice"
A_NUMBER = "what is added is one number"
TAKEN = "its convolutions are read elsewhere, add or activate already"


class FuseSumsAndActivations:
    """Looks at each Relu, Add and Sum of a blocked convolution.

    Args:
        scalars: tensors of one number, which a convolution cannot add.
    """

    done = "sums and activations in convolutions"
    subject = "sums and activations"

    def __init__(self, scalars: Collection[str] = ()) -> None:
        self._scalars = frozenset(scalars)
        self._order: dict[int, int] = {}
        """The place of a node, by its id."""

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        self._order = {id(node): place for place, node in enumerate(graph.nodes())}
        return (
            node
            for node in graph.nodes()
            if node.op_type in ("Relu", "Add", "Sum") and any(_convolutions(graph, node))
        )

    def check(self, graph: Editor, node: NodeProto) -> str | None:
        if len(set(node.input)) != len(node.input) or len(node.input) > 2:
            return SEVERAL
        if self._scalars.intersection(node.input):
            return A_NUMBER
        return None if any(_free(graph, node)) else TAKEN

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        conv = max(_free(graph, node), key=lambda candidate: self._order[id(candidate)])
        fused = copy_of(conv)
        if node.op_type == "Relu":
            set_attribute(fused, "activation", "Relu")
        else:
            [other] = [name for name in node.input if name != conv.output[0]]
            fused.input.extend([""] * (SUMMAND - len(fused.input)) + [other])
        fused.output[0] = node.output[0]
        graph.remove(conv)
        graph.replace(node, fused)  # at the later place: the other summand may be made in between
        self._order[id(fused)] = self._order[id(node)]
        return 1


def _convolutions(graph: Graph, node: NodeProto) -> Iterator[NodeProto]:
    """The blocked convolutions that a node reads."""
    for name in node.input:
        conv = graph.producers.get(name)
        if conv is not None and (conv.op_type, conv.domain) == ("Conv", BLOCKED_DOMAIN):
            yield conv


def _free(graph: Graph, node: NodeProto) -> Iterator[NodeProto]:
    """Those of them that can do the work of this Relu, Add or Sum too."""
    for conv in _convolutions(graph, node):
        only_here = graph.only_consumer(conv.output[0]) is node
        adds_already = node.op_type != "Relu" and len(conv.input) > SUMMAND
        if only_here and not adds_already and attribute(conv, "activation") is None:
            yield conv
