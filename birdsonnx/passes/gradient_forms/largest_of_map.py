"""The largest value of each whole map, for which there is no gradient, as a MaxPool.

One window as large as the map has the map's maximum; a Reshape takes the two dimensions of 1 away where the
operation does not keep them.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import Graph, attribute

OTHER_AXES = "it is the largest of other axes than height and width"


class LargestOfMapAsMaxPool:
    """Looks at GlobalMaxPools and ReduceMaxes of maps after a trained weight.

    Args:
        trained: the tensors that depend on a trained weight.
        shapes: of one photo's values, by tensor.
    """

    done = "largest of a map as max pool"
    subject = "largest of a map"

    def __init__(self, trained: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._trained, self._shapes = trained, shapes

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node
            for node in graph.nodes()
            if node.op_type in ("GlobalMaxPool", "ReduceMax")
            and node.input[0] in self._trained
            and len(self._shapes.get(node.input[0], ())) == 3
        )

    def check(self, graph: Editor, node: NodeProto) -> str | None:
        axes = _axes(graph, node)
        of_map = axes is not None and sorted(int(axis) % 4 for axis in axes) == [2, 3]
        return None if of_map else OTHER_AXES

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        data, output = node.input[0], node.output[0]
        channels, *size = self._shapes[data]
        keeps = node.op_type == "GlobalMaxPool" or attribute(node, "keepdims", 1)
        pooled = output if keeps else f"{output}/map"
        nodes = [helper.make_node("MaxPool", [data], [pooled], name=node.name, kernel_shape=size)]
        if not keeps:
            shape = f"{output}/shape"
            graph.set_constant(shape, np.array([-1, channels], np.int64))
            nodes.append(helper.make_node("Reshape", [pooled, shape], [output], name=f"{node.name}/flat"))
        graph.replace(node, *nodes)
        return 1


def _axes(graph: Graph, node: NodeProto) -> Any:
    """An attribute, from opset 18 on an input; None where they are computed."""
    if len(node.input) > 1:
        return graph.constant(node.input[1])
    return attribute(node, "axes", (2, 3))
