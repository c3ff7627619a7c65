"""What tf2onnx leaves in a graph, put right."""

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, helper, numpy_helper

from birdsonnx.keras_io.tf2onnx_road.naming import layer_of
from birdsonnx.model.edits import Editor, drop_unused, set_constant
from birdsonnx.model.graph import Array, Graph, shapes_per_photo


def erfc_as_erf(proto: GraphProto) -> int:
    """Write TensorFlow's `erfc(x)`, which its gelu calls and ONNX does not have, as `1 - erf(x)`."""
    nodes = [node for node in proto.node if node.op_type == "Erfc"]
    with Editor(proto) as graph:
        for node in nodes:
            erf = f"{node.name}/erf"
            graph.set_constant("one", np.ones((), np.float32))
            graph.replace(
                node,
                helper.make_node("Erf", [node.input[0]], [erf], name=f"{node.name}/Erf"),
                helper.make_node("Sub", ["one", erf], [node.output[0]], name=f"{node.name}/Sub"),
            )
    return len(nodes)


def dense_as_gemm(proto: GraphProto, weights: Mapping[str, tuple[Array, Array | None]]) -> int:
    """Make each Keras Dense on a flat input one Gemm with `<layer>/kernel` and `<layer>/bias`.

    tf2onnx drops a bias of zeros, which a head that has not been trained yet starts with; the values
    come from Keras: `weights[layer] = (kernel [inputs, units], bias [units] or None)` of the layers whose
    input is `[batch, inputs]`.
    """
    graph = Graph(proto)
    rewritten = 0
    for node in list(proto.node):
        if node.op_type != "MatMul":
            continue
        found = graph.constant(node.input[1])
        if found is None or found.ndim != 2:
            continue
        layer = layer_of(node.input[1], weights) or layer_of(node.name, weights)
        if layer is None or not np.array_equal(found, weights[layer][0]):
            continue
        kernel, bias = weights[layer]
        output, inputs = node.output[0], [node.input[0], f"{layer}/kernel"]
        set_constant(proto, f"{layer}/kernel", kernel)
        if bias is not None:
            inputs.append(f"{layer}/bias")
            set_constant(proto, f"{layer}/bias", bias)
        adder = graph.only_consumer(output)
        if adder is not None and adder.op_type == "Add" and bias is not None:
            others = [graph.constant(name) for name in adder.input if name != output]
            if len(others) == 1 and others[0] is not None and np.array_equal(others[0].reshape(-1), bias):
                output = adder.output[0]
                proto.node.remove(adder)
        node.CopyFrom(helper.make_node("Gemm", inputs, [output], name=f"{layer}/Gemm"))
        rewritten += 1
    return rewritten


def dense_on_maps(model: ModelProto) -> int:
    """A Dense on a map, for which tf2onnx flattens all positions and shapes them back, as one MatMul.

    Returns how many.
    """
    shapes = shapes_per_photo(model)
    graph = Graph(model.graph)
    rewritten = 0
    for product in [node for node in model.graph.node if node.op_type == "MatMul"]:
        kernel = graph.constants.get(product.input[1])
        before, after = graph.producers.get(product.input[0]), graph.only_consumer(product.output[0])
        if kernel is None or not (before and after and before.op_type == after.op_type == "Reshape"):
            continue
        source, target = (shapes.get(name, ()) for name in (before.input[0], after.output[0]))
        if len(source) > 1 and target == (*source[:-1], kernel.dims[1]) and source[-1] == kernel.dims[0]:
            product.input[0], product.output[0] = before.input[0], after.output[0]
            model.graph.node.remove(after)
            rewritten += 1
    drop_unused(model.graph)
    return rewritten


def shapes_as_constants(model: ModelProto) -> int:
    """Give each Reshape whose target tf2onnx computes from its input's shape (Keras' Flatten) that target as
    a constant, `[-1, ...]`: what reads a shape has no gradient. A Reshape that changes nothing is taken out.

    Returns how many.
    """
    shapes = shapes_per_photo(model)
    rewritten = 0
    with Editor(model.graph) as graph:
        for node in [node for node in graph.nodes() if node.op_type == "Reshape"]:
            before, after = (shapes.get(name, ()) for name in (node.input[0], node.output[0]))
            if not before or np.prod(before) != np.prod(after):
                continue  # sizes that are not known, or another number of photos
            if before == after and node.output[0] not in graph.outputs:
                graph.bypass(node)
            elif node.input[1] in graph.constants:
                continue
            else:
                graph.set_input(node, 1, f"{node.output[0]}/shape")
                graph.set_constant(node.input[1], np.array([-1, *after], np.int64))
            rewritten += 1
    return rewritten


def zero_below(proto: GraphProto, limit: float) -> int:
    """Make every float32 constant whose values are all smaller than this zeros. Returns how many."""
    made = 0
    for tensor in proto.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.any() and np.abs(value).max() < limit:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(value), tensor.name))
            made += 1
    return made
