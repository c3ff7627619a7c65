"""A gradient graph whose weights are inputs, rewritten for the runtime's blocked convolutions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, helper

from birdsonnx.model.edits import Editor, copy_of, set_attribute, set_nodes, sort_nodes
from birdsonnx.model.graph import attribute
from birdsonnx.passes.blocked.block_size import BLOCKED_DOMAIN
from birdsonnx.passes.blocked.fusing import FuseSumsAndActivations
from birdsonnx.passes.blocked.kernels import DerivedWeight
from birdsonnx.passes.blocked.layout import Layout
from birdsonnx.passes.blocked.relu_grad import ReluGradAsMask
from birdsonnx.passes.rewriting import Report, apply
from birdsonnx.runtime import onnxruntime_package
from birdsonnx.runtime.sessions import refusing

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class BlockedGraph:
    """A graph, and the inputs that it has besides those of the original."""

    model: ModelProto
    derived: tuple[DerivedWeight, ...]
    reports: tuple[Report, ...]


def blocked(model: ModelProto, shapes: Shapes, block: int) -> BlockedGraph:
    """Rewrite a gradient graph; with a block of 1 only what needs no blocks.

    Args:
        model: is left as it is.
        shapes: of all tensors, `shapes_in`.
        block: channels of a block of this processor, `block_size`.

    Raises:
        ModelError: the graph has a cycle.
    """
    proto = copy_of(model)
    shapes = dict(shapes)
    _drop_identities(proto.graph)
    masks = apply(ReluGradAsMask(shapes), proto.graph)
    if block == 1:
        return BlockedGraph(proto, (), (masks,))
    _name_kernel_shapes(proto.graph, shapes)
    sort_nodes(proto.graph)
    with Editor(proto.graph) as graph:
        layout = Layout(graph, shapes, block)
        set_nodes(proto.graph, layout.run())
    scalars = {name for name, shape in shapes.items() if shape in ((), (1,))}
    fused = apply(FuseSumsAndActivations(scalars), proto.graph)
    if not any(entry.domain == BLOCKED_DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(BLOCKED_DOMAIN, 1))
    return BlockedGraph(proto, layout.derived, (masks, *layout.reports, fused))


def shapes_in(model: ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, read off one run: no shape inference knows the gradient operations. Raises
    ModelError."""
    onnxruntime = onnxruntime_package.load()
    probe = copy_of(model)
    known = {value.name for value in probe.graph.output}
    names = [name for node in probe.graph.node for name in node.output if name]
    probe.graph.output.extend(helper.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors are raised as well
    with refusing("its gradient"):
        session = onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        found = session.run(names, dict(feeds))
    shapes = {name: value.shape for name, value in zip(names, found, strict=True)}
    shapes |= {name: value.shape for name, value in feeds.items()}
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def zeros_for(model: ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Inputs of a model to find shapes with, for two photos: a size of 1 is never that of the batch."""
    return {
        value.name: np.zeros(
            [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim],
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in model.graph.input
    }


def _drop_identities(proto: GraphProto) -> None:
    with Editor(proto) as graph:
        for node in graph.nodes():
            if node.op_type == "Identity" and node.output[0] not in graph.outputs:
                graph.bypass(node)


def _name_kernel_shapes(proto: GraphProto, shapes: Shapes) -> None:
    """The attribute is optional."""
    for node in proto.node:
        if node.op_type in ("Conv", "ConvGrad") and attribute(node, "kernel_shape") is None:
            weight = node.input[1 if node.op_type == "Conv" else 2]
            set_attribute(node, "kernel_shape", list(shapes[weight][2:]))
