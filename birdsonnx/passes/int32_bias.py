"""Biases of an int8 network that fit into int32.

The runtime adds a channel's bias to integer sums, as a multiple of the scale `input_scale * weight_scale` of
that channel. A channel with tiny weights, such as pruning and weight decay leave behind, has a tiny weight
scale: the multiple overflows int32, and the channel answers nonsense. Here such a channel gets the smallest
weight scale with which its bias fits,

    weight_scale = |bias| / (input_scale * LARGEST),

and its weights are rounded to that scale. A weight is then off by half a scale at most, and the sum of `n`
products by `n * 255 / 2 / LARGEST` of the bias: a thousandth for 9,000 products.
"""

import numpy as np
from onnx import ModelProto, NodeProto

from birdsonnx.model.edits import set_constant
from birdsonnx.model.graph import Array, Graph, attribute

LARGEST = 2**30
"""Of a bias as an integer: the other half of int32 is left for the sum of products."""
MOST = 127
"""Of an int8 weight."""


def bound_bias_scales(quantized: ModelProto, float32: ModelProto) -> int:
    """Enlarge the weight scales of channels whose bias overflows; returns how many channels had one.

    Args:
        quantized: convolutions and dense layers between QuantizeLinear and DequantizeLinear nodes; changed.
        float32: the network that it was made of; its nodes have the same names.
    """
    graph, originals = Graph(quantized.graph), {node.name: node for node in float32.graph.node}
    values = Graph(float32.graph)
    bounded = 0
    for node in quantized.graph.node:
        original = originals.get(node.name)
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or original is None:
            continue
        sources = [graph.producers.get(name) for name in node.input]
        weights, bias = values.constant(original.input[1]), values.constant(original.input[2])
        if weights is None or bias is None or any(source is None for source in sources):
            continue
        bounded += _bound(graph, [source for source in sources if source is not None], weights, bias)
    return bounded


def _bound(graph: Graph, sources: list[NodeProto], weights: Array, bias: Array) -> int:
    """`sources` make a node's input, weights and bias out of integers."""
    of_input, of_weights, of_bias = sources
    input_scale, scale = graph.constant(of_input.input[1]), graph.constant(of_weights.input[1])
    if input_scale is None or scale is None:
        return 0
    least = np.abs(bias.astype(np.float64)) / (float(input_scale.reshape(())) * LARGEST)
    wider = np.maximum(scale.astype(np.float64), least if scale.ndim else least.max()).astype(np.float32)
    changed = int((wider > scale).sum())
    if not changed:
        return 0
    axis = attribute(of_weights, "axis", 1)
    shape = [-1 if dim == axis and scale.ndim else 1 for dim in range(weights.ndim)]
    rounded = np.rint(weights / wider.reshape(shape)).clip(-MOST, MOST).astype(np.int8)
    proto = graph.proto
    set_constant(proto, of_weights.input[0], rounded)
    set_constant(proto, of_weights.input[1], wider)
    bias_scale = (wider * input_scale.reshape(())).astype(np.float32)
    set_constant(proto, of_bias.input[0], np.rint(bias.astype(np.float64) / bias_scale).astype(np.int32))
    set_constant(proto, of_bias.input[1], bias_scale)
    return changed
