"""Values that a stride leaves out, left out first.

`conv_s(x) = conv_1(x[::s, ::s])` for a 1 x 1 convolution of stride s, which looks at no other values. Taking
the part once, by a Slice, serves all convolutions of one tensor; they and their gradients become plain matrix
products, and features kept at that place need a quarter of the space. A 1 x 1 MaxPool of stride s is that
Slice too, and the gradient of a Slice needs no indices of where the largest values were.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor, set_attribute
from birdsonnx.model.graph import attribute, integers, pads_are_given
from birdsonnx.passes.strides import is_thinning

PADDED = "it pads its input"


class StrideBeforePointwise:
    """Looks at 1 x 1 convolutions with strides, frozen ones too."""

    done = "strides before 1 x 1 convolutions"
    subject = "strided 1 x 1 convolutions"

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node
            for node in graph.nodes()
            if node.op_type == "Conv"
            and attribute(node, "kernel_shape") == [1, 1]
            and max(integers(node, "strides", 1)) > 1
        )

    def check(self, _: Editor, conv: NodeProto) -> str | None:
        return None if not any(integers(conv, "pads", 0, 4)) and pads_are_given(conv) else PADDED

    def rewrite(self, graph: Editor, conv: NodeProto) -> int:
        source, strides = conv.input[0], integers(conv, "strides", 1)
        name = f"{source}/every_{'_'.join(map(str, strides))}"
        if name not in graph.producers:
            graph.insert_before(conv, _every_nth(graph, source, name, strides))
        graph.set_input(conv, 0, name)
        set_attribute(conv, "strides", [1, 1])
        return 1


class ThinningAsSlice:
    """Looks at 1 x 1 MaxPools after a trained weight.

    Args:
        trained: the tensors that depend on a trained weight.
    """

    done = "thinning as a slice"
    subject = "thinning"

    def __init__(self, trained: Collection[str]) -> None:
        self._trained = trained

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (node for node in graph.nodes() if is_thinning(node) and node.input[0] in self._trained)

    def check(self, _: Editor, __: NodeProto) -> str | None:
        return None

    def rewrite(self, graph: Editor, pool: NodeProto) -> int:
        strides = integers(pool, "strides", 1)
        graph.replace(pool, _every_nth(graph, pool.input[0], pool.output[0], strides))
        return 1


def _every_nth(graph: Editor, source: str, name: str, strides: Sequence[int]) -> NodeProto:
    """The node that takes every n-th row and column of a tensor `[batch, channels, height, width]`."""
    bounds = {"starts": (0, 0), "ends": (2**31 - 1,) * 2, "axes": (2, 3), "steps": tuple(strides)}
    for role, values in bounds.items():
        graph.set_constant(f"{name}/{role}", np.array(values, np.int64))
    return helper.make_node("Slice", [source, *(f"{name}/{role}" for role in bounds)], [name], name=name)
