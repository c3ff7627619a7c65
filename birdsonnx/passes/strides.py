"""Strides moved up to where values are computed that nothing reads.

A 1 x 1 convolution of stride s reads every s-th row and column only: `conv_s(x) = conv_1(x[::s, ::s])`. What
maps each value by itself (a Relu, an Add) commutes with taking every s-th value, and a convolution of stride
t computes exactly that part with stride s t. So the stride moves up through them to the convolutions that
made `x`; a shortcut that others read in full is thinned out by a 1 x 1 MaxPool of stride s.

ResNet's (version 1) stages begin with 1 x 1 convolutions of stride 2: of the last block before each, three
quarters of what its last two convolutions compute is never read. Without that ResNet50 has 10 % fewer
products, forward and backward.
"""

from collections.abc import Iterator, Sequence

from onnx import GraphProto, NodeProto, helper

from birdsonnx.model.edits import Editor, set_attribute
from birdsonnx.model.graph import Graph, attribute, integers, pads_are_given
from birdsonnx.passes.rewriting import Report, apply

POINTWISE = frozenset(("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"))
"""Operations that map each value by itself."""

READ_IN_FULL = "other layers read what the stride leaves out"


class MoveStridesUp:
    """Looks at tensors, from the end of the graph to its start: a move gives strides to convolutions further
    up, which are then seen in their turn."""

    done = "strides moved up"
    subject = "strides"

    def candidates(self, graph: Editor) -> Iterator[str]:
        """The tensors of which some 1 x 1 convolution leaves out values that have been computed."""
        for node in graph.nodes_backwards():
            tensor = node.output[0]
            readers = graph.consumers.get(tensor, [])
            if any(_is_strided_pointwise(reader, tensor) for reader in readers) and _spares_work(
                graph, tensor
            ):
                yield tensor

    def check(self, graph: Editor, tensor: str) -> str | None:
        return READ_IN_FULL if _common_strides(graph, tensor) is None else None

    def rewrite(self, graph: Editor, tensor: str) -> int:
        strides = _common_strides(graph, tensor)
        assert strides is not None
        for reader in graph.consumers[tensor]:
            set_attribute(reader, "strides", [1, 1])
        return _thin_out(graph, tensor, strides)


def move_strides_up(proto: GraphProto) -> Report:
    """Let a convolution compute only what the strided 1 x 1 convolutions after it read.

    The report counts the convolutions that got a larger stride.
    """
    return apply(MoveStridesUp(), proto)


def _common_strides(graph: Graph, tensor: str) -> list[int] | None:
    """The strides of all readers, where these are 1 x 1 convolutions over all of the tensor alike."""
    if tensor in graph.outputs:
        return None
    readers = graph.consumers[tensor]
    strides = [integers(node, "strides", 1) for node in readers]
    plain = all(_is_strided_pointwise(node, tensor) for node in readers)
    return strides[0] if plain and all(each == strides[0] for each in strides) else None


def _is_strided_pointwise(node: NodeProto, tensor: str) -> bool:
    return (
        node.op_type == "Conv"
        and node.input[0] == tensor
        and tensor not in node.input[1:]
        and pads_are_given(node)
        and integers(node, "kernel_shape", 0) == [1, 1]
        and not any(integers(node, "pads", 0, 4))
        and max(integers(node, "strides", 1)) > 1
    )


def _spares_work(graph: Graph, tensor: str) -> bool:
    """Whether some convolution computes less if only every n-th value of a tensor is wanted."""
    node = graph.producers.get(tensor)
    if node is None:
        return False
    if node.op_type == "Conv":
        return pads_are_given(node)
    if node.op_type in POINTWISE:
        return _is_read_once(graph, node.input[0])
    if node.op_type == "Add" and len(set(node.input)) == 2 and graph.producers.keys() >= set(node.input):
        return any(_is_read_once(graph, name) for name in node.input)
    return False


def _is_read_once(graph: Graph, tensor: str) -> bool:
    """Whether a tensor may be thinned out for its one reader, and some convolution computes less then."""
    return graph.only_consumer(tensor) is not None and _spares_work(graph, tensor)


def _thin_out(graph: Editor, tensor: str, strides: Sequence[int]) -> int:
    """Make `tensor` hold every n-th of its values; returns how many convolutions compute less."""
    node = graph.producers[tensor]
    if node.op_type == "Conv":
        own = integers(node, "strides", 1)
        set_attribute(node, "strides", [one * other for one, other in zip(own, strides, strict=True)])
        return 1
    moved = 0
    for index in range(2 if node.op_type == "Add" else 1):
        source = node.input[index]
        if _is_read_once(graph, source):
            moved += _thin_out(graph, source, strides)
        else:
            graph.set_input(node, index, _thinned(graph, source, strides))
    return moved


def _thinned(graph: Editor, source: str, strides: Sequence[int]) -> str:
    """The tensor that has every n-th value of `source`, made once for all its readers."""
    name = f"{source}/every_{'_'.join(map(str, strides))}"
    if name not in graph.producers:
        attributes = {"kernel_shape": [1, 1], "strides": list(strides)}
        pool = helper.make_node("MaxPool", [source], [name], name=name, **attributes)
        if source in graph.producers:
            graph.insert_after(graph.producers[source], pool)
        else:
            graph.insert_first(pool)
    return name


def is_thinning(node: NodeProto) -> bool:
    """Whether a MaxPool only takes every n-th value."""
    return (
        node.op_type == "MaxPool"
        and integers(node, "kernel_shape", 0) == [1, 1]
        and not any(integers(node, "pads", 0, 4))
        and not attribute(node, "ceil_mode", 0)
    )
