"""Questions to an ONNX graph: who makes a tensor, who reads it, which constants and shapes there are."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]

SHAPE_LIKE = 64
"""Constants with more values are not the target shape of any Reshape; shape inference needs only those."""


class Graph:
    """Names looked up once: which node makes a tensor, which nodes read it, which constants there are.

    It sees no changes that are made to the graph afterwards; `edits.Editor` is a view that does.
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


def shapes_per_photo(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """The dimensions after the batch of float32 tensors and of inputs, where all of them are known."""
    inferred = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    floats = [value for value in inferred.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    shapes = {}
    for value in (*floats, *inferred.input, *inferred.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(dims) > 1 and all(dims[1:]):
            shapes[value.name] = tuple(dims[1:])
    return shapes


def without_weights(model: ModelProto) -> ModelProto:
    """A copy whose large constants have a shape but no values: shape inference copies the model twice."""
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


def part_of(model: ModelProto, tensor: str, inputs: Iterable[ValueInfoProto]) -> ModelProto:
    """What a graph needs to compute one tensor from these inputs, as a model of its own."""
    part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = part.graph
    graph.name = model.graph.name
    graph.input.extend(inputs)
    graph.output.add(name=tensor)
    given = {value.name for value in graph.input}
    needed = {tensor}
    nodes = []
    for node in reversed(model.graph.node):
        if not given.issuperset(node.output) and needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(each for each in model.graph.initializer if each.name in needed)
    return part


def ancestors(graph: GraphProto, tensors: Iterable[str]) -> list[NodeProto]:
    """The nodes that compute these tensors, in order."""
    needed, found = set(tensors), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            found.append(node)
    return found[::-1]


def depending_on(graph: GraphProto, tensors: Iterable[str]) -> set[str]:
    """These tensors, and all that are computed from them."""
    reached = set(tensors)
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


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
