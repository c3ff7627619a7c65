"""Named graph rewrites, each exact up to float32 rounding, each with an equality test of its own."""

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.naming import layer_of
from birdsonnx.model.graph import (
    Array,
    Graph,
    attribute,
    drop_unused,
    opset_of,
    redirect,
    remove,
    set_attribute,
    set_constant,
    shapes_behind_batch,
)
from birdsonnx.model.metadata import INPUT, OUTPUT
from birdsonnx.model.preprocessing import Preprocessing

PREPROCESS = "preprocess/"
NETWORK_INPUT = "network_input"
"""The float32 NCHW tensor behind the preprocessing: what Keras calls the model's input."""


def fold_batch_norm(proto: GraphProto) -> int:
    """Fold BatchNormalization, or the Mul and Add it became, into the convolution in front of it. One that is
    called twice is left alone: its kernel is trained as one, whatever norms follow the calls.

    Returns the number of nodes folded. Computed in float64, so that the folded weights are the float32
    nearest to the exact product.
    """
    folded = 0
    while True:
        graph = Graph(proto)
        for conv in proto.node:
            if conv.op_type != "Conv" or graph.constant(conv.input[1]) is None:
                continue
            if len(graph.consumers[conv.input[1]]) > 1:
                continue
            follower = graph.only_consumer(conv.output[0])
            affine = follower and channel_affine(graph, follower, conv.output[0])
            if follower is None or affine is None:
                continue
            scale, shift = affine
            kernel = graph.constant(conv.input[1])
            bias = graph.constant(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(scale))
            if kernel is None or bias is None or len(scale) != len(kernel):
                continue
            kernel_name = conv.input[1]
            bias_name = f"{kernel_name}/bias"
            wide = kernel.astype(np.float64) * scale.reshape(-1, *[1] * (kernel.ndim - 1))
            set_constant(proto, kernel_name, wide.astype(np.float32))
            set_constant(proto, bias_name, (bias.astype(np.float64) * scale + shift).astype(np.float32))
            del conv.input[1:]
            conv.input.extend([kernel_name, bias_name])
            conv.output[0] = follower.output[0]
            remove(proto, [follower])
            folded += 1
            break
        else:
            return folded


def channel_affine(graph: Graph, node: NodeProto, data: str) -> tuple[Array, Array] | None:
    """`(scale, shift)` in float64 per channel if the node maps `data` by constants along axis 1."""
    if node.op_type == "BatchNormalization":
        values = [graph.constant(name) for name in node.input[1:5]]
        if node.input[0] != data or any(value is None for value in values) or len(node.output) > 1:
            return None
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
        epsilon = attribute(node, "epsilon", 1e-5)
        scale = gamma / np.sqrt(variance + float(str(epsilon)))
        return scale, beta - mean * scale
    if node.op_type not in ("Mul", "Add"):
        return None
    other = [name for name in node.input if name != data]
    constant = graph.constant(other[0]) if len(other) == 1 else None
    if constant is None or constant.ndim not in (3, 4) or constant.size != constant.shape[-3]:
        return None
    value = np.asarray(constant, np.float64).reshape(-1)
    return (value, np.zeros_like(value)) if node.op_type == "Mul" else (np.ones_like(value), value)


def pad_into_max_pool(proto: GraphProto) -> int:
    """Give a zero Pad between Relu and MaxPool to the MaxPool: 5-9 % of an int8 run.

    Exact because MaxPool pads with minus infinity and every window of these pads holds a value >= 0 of
    the Relu, so neither padding is ever the maximum that the other would not give.
    """
    graph = Graph(proto)
    merged = 0
    for pad in list(proto.node):
        pool = graph.only_consumer(pad.output[0]) if pad.op_type == "Pad" else None
        source = graph.producers.get(pad.input[0])
        if pool is None or pool.op_type != "MaxPool" or source is None or source.op_type != "Relu":
            continue
        amounts = graph.constant(pad.input[1])
        value = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        mode = attribute(pad, "mode", b"constant")
        if (
            amounts is None
            or value is None
            or np.any(value != 0)
            or mode != b"constant"
            or len(pad.input) > 3
        ):
            continue
        if attribute(pool, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or attribute(pool, "pads"):
            continue
        begin, end = np.split(amounts.astype(np.int64), 2)
        kernel = np.asarray(attribute(pool, "kernel_shape"))
        # Negative amounts cut off. A window wholly inside the padding would give minus infinity instead of 0.
        if (
            (amounts < 0).any()
            or begin[:2].any()
            or end[:2].any()
            or (np.maximum(begin, end)[2:] >= kernel).any()
        ):
            continue
        set_attribute(pool, "auto_pad", "NOTSET")
        set_attribute(pool, "pads", [*begin[2:].tolist(), *end[2:].tolist()])
        pool.input[0] = pad.input[0]
        remove(proto, [pad])
        merged += 1
    return merged


def erfc_as_erf(proto: GraphProto) -> int:
    """Write TensorFlow's `erfc(x)`, which its gelu calls and ONNX does not have, as `1 - erf(x)`."""
    nodes = [node for node in proto.node if node.op_type == "Erfc"]
    for node in nodes:
        at = list(proto.node).index(node)
        erf = f"{node.name}/erf"
        set_constant(proto, "one", np.ones((), np.float32))
        proto.node.insert(at, helper.make_node("Erf", [node.input[0]], [erf], name=f"{node.name}/Erf"))
        node.CopyFrom(helper.make_node("Sub", ["one", erf], [node.output[0]], name=f"{node.name}/Sub"))
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
                remove(proto, [adder])
        node.CopyFrom(helper.make_node("Gemm", inputs, [output], name=f"{layer}/Gemm"))
        rewritten += 1
    return rewritten


def dense_on_maps(model: ModelProto) -> int:
    """A Dense on a map, for which tf2onnx flattens all positions and shapes them back, as one MatMul.

    Returns how many.
    """
    shapes = shapes_behind_batch(model)
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
            remove(model.graph, [after])
            rewritten += 1
    drop_unused(model.graph)
    return rewritten


def shapes_as_constants(model: ModelProto) -> int:
    """Give each Reshape whose target tf2onnx computes from its input's shape (Keras' Flatten) that target as
    a constant, `[-1, ...]`: what reads a shape has no gradient. A Reshape that changes nothing is taken out.

    Returns how many.
    """
    shapes = shapes_behind_batch(model)
    graph = Graph(model.graph)
    rewritten = 0
    for node in [node for node in model.graph.node if node.op_type == "Reshape"]:
        before, after = (shapes.get(name, ()) for name in (node.input[0], node.output[0]))
        if not before or np.prod(before) != np.prod(after):
            continue  # sizes that are not known, or another number of photos
        if before == after and node.output[0] not in graph.outputs:
            redirect(model.graph, node.output[0], node.input[0])
            remove(model.graph, [node])
        elif node.input[1] in graph.constants:
            continue
        else:
            node.input[1] = f"{node.output[0]}/shape"
            set_constant(model.graph, node.input[1], np.array([-1, *after], np.int64))
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


LAYOUT = ("Reshape", "Squeeze", "Flatten", "Transpose", "Identity")
POOLING = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")


def end_in_log_probs(proto: GraphProto) -> None:
    """Let a softmax, log_softmax or linear head end in `log_probs`, float32 `[batch, classes]`.

    Raises:
        ModelError: the network ends in anything else, so that its outputs are no class scores.
    """
    graph = Graph(proto)
    [output] = proto.output
    scores = output.name
    last = _maker(graph, scores, LAYOUT)
    if last is not None and last.op_type in ("Softmax", "LogSoftmax"):
        if last.output[0] == scores:
            scores = last.input[0]
        redirect(proto, last.output[0], last.input[0])
        remove(proto, [last])
    elif last is None or not _gives_scores(graph, last):
        ends = "its own input" if last is None else last.op_type
        raise ModelError(
            f"the network ends in {ends}; a classifier ends in softmax, log_softmax or plain scores"
        )
    if scores == output.name:
        scores = "logits"
        graph.producers[output.name].output[0] = scores
    classes = output.type.tensor_type.shape.dim[-1].dim_value
    proto.node.append(helper.make_node("LogSoftmax", [scores], [OUTPUT], name="log_softmax", axis=-1))
    output.CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))


def _maker(graph: Graph, tensor: str, through: tuple[str, ...]) -> NodeProto | None:
    """The node that computes a tensor, seen through such operations; None for an input."""
    node = graph.producers.get(tensor)
    while node is not None and node.op_type in through:
        node = graph.producers.get(node.input[0])
    return node


def _gives_scores(graph: Graph, node: NodeProto) -> bool:
    """Whether a node's results can be scores of any size: neither squashed nor cut off, nor their mean."""
    if node.op_type in POOLING:
        pooled = _maker(graph, node.input[0], (*LAYOUT, *POOLING))
        return pooled is not None and pooled.op_type not in ("Softmax", "LogSoftmax", "Sigmoid")
    if node.op_type in ("Mul", "Div", "Sub"):  # a temperature; x * sigmoid(x) is an activation
        return any(name in graph.constants for name in node.input)
    return node.op_type in ("Gemm", "MatMul", "Conv", "Add")


def take_uint8(proto: GraphProto, preprocessing: Preprocessing, source: str = NETWORK_INPUT) -> None:
    """Put the preprocessing in front: `images` uint8 `[batch, height, width, channels]` to `source`.

    `source` is the float32 NCHW input of the network, which stops being a graph input; where the graph
    has a preprocessing already, the new one takes its place. Transposing and reordering happen on uint8,
    a quarter of the bytes.
    """
    remove(proto, [node for node in proto.node if node.name.startswith(PREPROCESS)])
    [graph_input] = proto.input
    dims = [dim.dim_value for dim in graph_input.type.tensor_type.shape.dim]
    if graph_input.name != INPUT:
        redirect(proto, graph_input.name, source)
        dims = [dims[0], dims[2], dims[3], dims[1]]
    height, width, channels = dims[1:]

    nodes: list[NodeProto] = []
    tensor = INPUT

    def then(operation: str, extra: Array | None = None, **attributes: object) -> None:
        nonlocal tensor
        name = f"{PREPROCESS}{operation.lower()}"
        inputs = [tensor]
        if extra is not None:
            set_constant(proto, f"{name}_by", extra)
            inputs.append(f"{name}_by")
        nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        tensor = name

    then("Transpose", perm=[0, 3, 1, 2])
    if preprocessing.bgr:
        then("Gather", np.arange(channels)[::-1].astype(np.int64), axis=1)
    then("Cast", to=TensorProto.FLOAT)
    if any(number != 1 for number in preprocessing.scale):
        then("Mul", np.asarray(preprocessing.scale, np.float32).reshape(1, -1, 1, 1))
    if any(number != 0 for number in preprocessing.offset):
        then("Add", np.asarray(preprocessing.offset, np.float32).reshape(1, -1, 1, 1))
    nodes[-1].output[0] = source

    network = list(proto.node)
    del proto.node[:]
    proto.node.extend([*nodes, *network])
    graph_input.CopyFrom(
        helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", height, width, channels])
    )
    drop_unused(proto)


def finish(model: ModelProto) -> None:
    """Drop what nothing needs, keep only the `ai.onnx` import and the oldest IR that the opset allows."""
    drop_unused(model.graph)
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    if used - {"", "ai.onnx"}:
        raise ModelError(
            f"the converted graph needs operators of {', '.join(sorted(used - {'', 'ai.onnx'}))}"
        )
    unknown = {node.op_type for node in model.graph.node if not defs.has(node.op_type, node.domain)}
    if unknown:
        raise ModelError(f"this network needs {', '.join(sorted(unknown))}, which ONNX does not have")
    opset = opset_of(model)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = min(10, helper.find_min_ir_version_for(list(model.opset_import)))
    model.graph.name = "birdsonnx"
    model.graph.doc_string = model.doc_string = ""
    model.producer_name = "birdsonnx"
    model.producer_version = ""
