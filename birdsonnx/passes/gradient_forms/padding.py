"""Padding that is computed from the input's size, as numbers.

With `auto_pad` SAME, ONNX defines the output of stride s over n values to have `ceil(n / s)`; a window of k
values with dilation d then needs `(ceil(n / s) - 1) s + (k - 1) d + 1 - n` values of padding in all, an odd
one at the end (SAME_UPPER) or at the start (SAME_LOWER). Sizes are fixed in a classifier, so that these are
numbers.
"""

from collections.abc import Iterator, Mapping

from onnx import NodeProto

from birdsonnx.model.edits import Editor, set_attribute
from birdsonnx.model.graph import Graph, attribute, integers

UNKNOWN_SIZE = "the size of its input is not known"
AFTER_PAD = "it follows a Pad, and the runtime would take both for one"


class PadsAsGiven:
    """Looks at convolutions and pools that compute their padding.

    Args:
        shapes: of one photo's values, by tensor.
    """

    done = "computed padding as numbers"
    subject = "computed padding"

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node
            for node in graph.nodes()
            if node.op_type in ("Conv", "MaxPool", "AveragePool")
            and attribute(node, "auto_pad") in (b"SAME_UPPER", b"SAME_LOWER")
        )

    def check(self, graph: Editor, node: NodeProto) -> str | None:
        before = graph.producers.get(node.input[0])
        if node.op_type != "Conv" and before is not None and before.op_type == "Pad":
            return AFTER_PAD
        return None if len(self._shapes.get(node.input[0], ())) == 3 else UNKNOWN_SIZE

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        at_the_end = attribute(node, "auto_pad") == b"SAME_UPPER"
        begin, end = [], []
        for size, window, stride, dilation in zip(
            self._shapes[node.input[0]][1:],
            _kernel_shape(graph, node),
            integers(node, "strides", 1),
            integers(node, "dilations", 1),
            strict=True,
        ):
            total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
            begin.append(total // 2 if at_the_end else total - total // 2)
            end.append(total - begin[-1])
        set_attribute(node, "auto_pad", "NOTSET")
        set_attribute(node, "pads", [*begin, *end])
        return 1


def _kernel_shape(graph: Graph, node: NodeProto) -> list[int]:
    if node.op_type == "Conv" and node.input[1] in graph.constants:
        return list(graph.constants[node.input[1]].dims[2:])
    return integers(node, "kernel_shape", 1)
