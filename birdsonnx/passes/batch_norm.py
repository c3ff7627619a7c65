"""BatchNormalization folded into the convolution before it."""

import numpy as np
from onnx import GraphProto, NodeProto

from birdsonnx.model.graph import Array, Graph, attribute, remove, set_constant


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
