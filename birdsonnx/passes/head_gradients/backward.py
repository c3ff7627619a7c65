"""The nodes that carry gradients from a loss to the weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from birdsonnx.model.graph import Array, Graph

Shape = tuple[int, ...]


class Backward:
    """Nodes in the order in which they are added; a call adds an operation and gives its result's name.

    Args:
        graph: what is differentiated.
        shapes: of all its tensors, for a batch of more than one photo. They say what is broadcast; the
            size of the batch goes into no node.
    """

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._graph, self._shapes = graph, shapes

    def __call__(self, operation: str, *inputs: str | float | Array, **attributes: Any) -> str:
        result = f"gradients/{len(self.nodes)}_{operation}"
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(helper.make_node(operation, names, [result], name=result, **attributes))
        return result

    def shape(self, name: str) -> Shape:
        """Of a tensor of the graph; that of a batch has more than one photo."""
        return self._shapes[name]

    def value(self, name: str) -> Array | None:
        """Of a constant of the graph, or None."""
        return self._graph.constant(name)

    def summed(self, gradient: str, shape: Shape, like: str) -> str:
        """A gradient of this shape, summed over what was broadcast from the tensor `like`."""
        small = self.shape(like)
        more = len(shape) - len(small)
        stretched = [axis for axis in range(more, len(shape)) if small[axis - more] == 1 != shape[axis]]
        if not stretched and not more:
            return gradient
        axes = np.array([*range(more), *stretched], np.int64)
        total = self("ReduceSum", gradient, axes, keepdims=int(bool(stretched)))
        return self("Squeeze", total, np.arange(more)) if more and stretched else total

    def spread(self, gradient: str, like: str) -> str:
        """A gradient broadcast to the shape of a tensor."""
        return self("Expand", gradient, self("Shape", like))

    def as_shaped(self, gradient: str, like: str) -> str:
        """A gradient of as many numbers in the shape of a tensor."""
        return self("Reshape", gradient, self("Shape", like))

    def turned(self, tensor: str, dimensions: int) -> str:
        """The last two axes exchanged."""
        axes = list(range(dimensions))
        return self("Transpose", tensor, perm=[*axes[:-2], axes[-1], axes[-2]])

    def constant(self, value: float | Array) -> str:
        """A float32 number or int64 axes and sizes, kept once each."""
        array = np.asarray(value, np.float32 if isinstance(value, float) else np.int64)
        name = f"gradients/constant_{array.tolist()}_{array.dtype}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name
