"""The largest value of each whole map, for which there is no gradient, as a MaxPool.

One window as large as the map has the map's maximum; a Reshape takes the dimensions of 1 away where the
operation does not keep them. The largest along other axes is that of a map of one side, once these axes are
the last and are one.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import Graph, attribute

COMPUTED_AXES = "its axes are computed, or are those of the photos"


class LargestOfMapAsMaxPool:
    """Looks at GlobalMaxPools and ReduceMaxes after a trained weight.

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
            and node.input[0] in self._shapes
        )

    def check(self, graph: Editor, node: NodeProto) -> str | None:
        axes = self._axes(graph, node)
        return COMPUTED_AXES if axes is None or 0 in axes else None

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        data, output = node.input[0], node.output[0]
        shape = (-1, *self._shapes[data])
        axes = self._axes(graph, node)
        assert axes is not None
        rest = [axis for axis in range(1, len(shape)) if axis not in axes]
        keeps = node.op_type == "GlobalMaxPool" or bool(attribute(node, "keepdims", 1))
        nodes: list[NodeProto] = []

        def then(operation: str, *constants: Sequence[int], **attributes: Any) -> None:
            name = f"{output}/{len(nodes)}"
            for value in constants:
                graph.set_constant(f"{name}/shape", np.array(value, np.int64))
            inputs = [nodes[-1].output[0] if nodes else data, *([f"{name}/shape"] if constants else [])]
            nodes.append(
                helper.make_node(operation, inputs, [name], name=f"{node.name}/{len(nodes)}", **attributes)
            )

        if rest == [1] and len(shape) > 2:
            then("MaxPool", kernel_shape=shape[2:])
        else:
            if [*rest, *axes] != list(range(1, len(shape))):
                then("Transpose", perm=[0, *rest, *axes])
            size = math.prod(shape[axis] for axis in axes)
            then("Reshape", (-1, math.prod(shape[axis] for axis in rest), size))
            then("MaxPool", kernel_shape=[size])
        if rest != [1] or not keeps:
            then(
                "Reshape",
                [1 if axis in axes else side for axis, side in enumerate(shape) if keeps or axis not in axes],
            )
        nodes[-1].output[0], nodes[-1].name = output, node.name
        graph.replace(node, *nodes)
        return 1

    def _axes(self, graph: Graph, node: NodeProto) -> list[int] | None:
        """An attribute, from opset 18 on an input; None where they are computed."""
        rank = len(self._shapes[node.input[0]]) + 1
        if len(node.input) > 1:
            given: Any = graph.constant(node.input[1])
        else:
            given = attribute(
                node, "axes", range(2, rank) if node.op_type == "GlobalMaxPool" else range(rank)
            )
        return None if given is None else sorted(int(axis) % rank for axis in given)
