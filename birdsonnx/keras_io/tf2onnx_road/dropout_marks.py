"""Keras' Dropout layers in a traced network: marked before the trace, Dropout nodes after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, helper

from birdsonnx.model.edits import set_attribute, set_constant
from birdsonnx.model.graph import attribute
from birdsonnx.model.metadata import Dropout

KINDS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D")
"""Keras layers that are one."""

MARK = "birdsonnx_call"
"""Attribute that a marked node carries until `settle`."""


class _Call(NamedTuple):
    """One use of a layer; shapes are of one photo, in Keras' order of the axes."""

    rate: float
    values: tuple[int, ...]
    mask: tuple[int, ...]


class Marks:
    """Keras' Dropout layers, made visible to tf2onnx: in a traced prediction there is nothing left of them.

    Each becomes a CheckNumerics, which nothing else in a network uses and no optimizer of TensorFlow removes;
    tf2onnx makes a Selu of that, since its own optimizers know how to move a Transpose past one.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = [layer for layer in layers if type(layer).__name__ in KINDS and layer.rate]
        self._calls: list[_Call] = []
        self._call_of: dict[str, int] = {}
        """By the name that a mark has in tf2onnx's graph."""
        self.handlers: dict[str, Any] = {"CheckNumerics": (self._as_selu, [])}
        """What tf2onnx is to do with the marks."""

    @contextmanager
    def visible(self) -> Iterator[None]:
        """Let the layers leave marks in what is traced meanwhile."""
        try:
            for layer in self._layers:
                layer.call = self._marking(layer)
            yield
        finally:
            for layer in self._layers:
                if "call" in vars(layer):
                    del layer.call

    def _marking(self, layer: Any) -> Any:
        import tensorflow as tf

        def call(inputs: Any, training: bool = False) -> Any:  # noqa: ARG001 - Keras gives it
            values = tuple(int(size or 0) for size in inputs.shape[1:])
            shared = _shared(layer, len(values))
            mask = tuple(1 if axis in shared else size for axis, size in enumerate(values))
            self._calls.append(_Call(float(layer.rate), values, mask))
            return tf.debugging.check_numerics(inputs, str(len(self._calls) - 1))

        return call

    def _as_selu(self, _: Any, node: Any, name: str, __: Any) -> None:
        self._call_of[name] = int(node.get_attr_str("message"))
        for each in list(node.attr):
            del node.attr[each]
        node.type = "Selu"
        node.set_attr(MARK, self._call_of[name])  # or two of them on one tensor would be merged

    def name(self, graph: GraphProto) -> None:
        """Call what tf2onnx made of the marks by its right name."""
        for node in graph.node:
            if node.name in self._call_of:
                node.op_type = "Dropout"
                set_attribute(node, MARK, self._call_of[node.name])

    def settle(self, model: ModelProto) -> tuple[Dropout, ...]:
        """Make the marked nodes plain Dropout nodes; returns what the metadata say of them.

        To be called when nodes have their final names.
        """
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        known = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)[1:]
            for value in inferred.value_info
        }
        found = []
        for node in [node for node in model.graph.node if attribute(node, MARK) is not None]:
            number: Any = attribute(node, MARK)
            rate, values, mask = self._calls[number]
            if len(values) == 3 and known.get(node.output[0], ()) == (values[2], *values[:2]):
                mask = (mask[2], *mask[:2])  # Keras' channels are last, a graph's first
            ratio = f"{node.name}/ratio"
            set_constant(model.graph, ratio, np.array(rate, np.float32))
            node.CopyFrom(
                helper.make_node("Dropout", [node.input[0], ratio], [node.output[0]], name=node.name)
            )
            found.append(Dropout(node.name, rate, mask))
        return tuple(found)


def _shared(layer: Any, rank: int) -> set[int]:
    """The axes of one photo's values, counted without the batch, along which a layer drops all or none."""
    kind = type(layer).__name__
    if kind == "SpatialDropout1D":
        return {0}
    if kind == "SpatialDropout2D":
        return {0, 1} if layer.data_format == "channels_last" else {1, 2}
    noise = layer.noise_shape or (None,) * (rank + 1)
    return {axis for axis, size in enumerate(noise[1:]) if size == 1}
