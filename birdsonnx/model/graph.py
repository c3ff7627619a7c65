"""Small questions to an ONNX graph, shared by the rewrites and the division in front of what is trained."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

SHAPE_LIKE = 64
"""Constants of more values are no shapes, which shapes could follow from."""


class Graph:
    """Names looked up once: who produces a tensor, who consumes it, which constants there are.

    A view for one rewrite; make a new one after the graph changed.
    """

    def __init__(self, proto: GraphProto) -> None:
        self.proto = proto
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in proto.initializer}
        self.producers: dict[str, NodeProto] = {name: node for node in proto.node for name in node.output}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in proto.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in proto.output}

    def constant(self, name: str) -> Array | None:
        """The value of an initializer, or None."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def only_consumer(self, name: str) -> NodeProto | None:
        """The one node that reads this tensor, or None where there are several or it is an output."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def shapes_behind_batch(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """The dimensions behind the batch of float32 tensors and of inputs, where all of them are known."""
    inferred = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    floats = [value for value in inferred.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    shapes = {}
    for value in (*floats, *inferred.input, *inferred.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(dims) > 1 and all(dims[1:]):
            shapes[value.name] = tuple(dims[1:])
    return shapes


def without_weights(model: ModelProto) -> ModelProto:
    """A model whose large constants have a shape but no values: inferring shapes copies all of it, twice."""
    light = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    graph = model.graph
    light.graph.MergeFrom(
        onnx.GraphProto(
            name=graph.name,
            node=graph.node,
            input=graph.input,
            output=graph.output,
            value_info=graph.value_info,
        )
    )
    for tensor in graph.initializer:
        if np.prod(tensor.dims) > SHAPE_LIKE:
            light.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        else:
            light.graph.initializer.append(tensor)
    return light


def opset_of(model: ModelProto) -> int:
    """The version of the `ai.onnx` operators that a model uses."""
    [opset] = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(opset)


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """The value of a node's attribute."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Give a node's attribute a value, in place of the one that it has."""
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)
    node.attribute.append(helper.make_attribute(name, value))


def integers(node: NodeProto, name: str, default: int, count: int = 2) -> list[int]:
    """The values of a node's attribute such as strides, or `count` times `default` where it is not given."""
    value: Any = attribute(node, name)
    return list(value) if value else [default] * count


def number(node: NodeProto, name: str, default: float) -> float:
    """The value of a node's attribute such as alpha."""
    value: Any = attribute(node, name, default)
    return float(value)


def pads_are_given(node: NodeProto) -> bool:
    """Whether padding is what `pads` says, and not computed from the input's size."""
    return attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")


def set_constant(proto: GraphProto, name: str, value: Array) -> None:
    """Add an initializer, or replace the one of that name."""
    tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
    for existing in proto.initializer:
        if existing.name == name:
            existing.CopyFrom(tensor)
            return
    proto.initializer.append(tensor)


def redirect(proto: GraphProto, old: str, new: str) -> None:
    """Let every reader of tensor `old` read `new`."""
    for node in proto.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def remove(proto: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Take nodes out of the graph."""
    for node in nodes:
        proto.node.remove(node)


def drop_unused(proto: GraphProto) -> None:
    """Remove nodes and initializers that no output needs, keeping the order of the rest."""
    needed = {output.name for output in proto.output}
    kept = []
    for node in reversed(proto.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in proto.initializer if tensor.name in needed]
    del proto.node[:], proto.initializer[:]
    proto.node.extend(reversed(kept))
    proto.initializer.extend(constants)
