"""BatchNormalization, or the Mul and Add that it became, folded into the convolution before it.

A convolution gives `y = W * x + b` per output channel, and in inference mode a BatchNormalization maps each
channel by `scale * y + shift` with `scale = gamma / sqrt(variance + epsilon)` and
`shift = beta - mean * scale`. Together: `(scale W) * x + (scale b + shift)`, again a convolution. Computed
in float64, so that the folded weights are the float32 nearest to the exact product.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import Array, Graph, attribute

CALLED_TWICE = "its convolution is called twice"
"""The one kernel of both calls is trained as one, whatever follows the calls."""
NO_CONVOLUTION = "no convolution before it"
READ_ELSEWHERE = "the convolution before it is read elsewhere too"
NOT_CONSTANT = "weights that are computed in the graph"


class FoldBatchNorm:
    """Takes one node at a time: a Mul, and then the Add after it, count as two."""

    done = "batch norm folded"
    subject = "batch norm"

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        for node in graph.nodes():
            if node.op_type == "BatchNormalization" or _maps_channels_of_a_convolution(graph, node):
                yield node

    def check(self, graph: Editor, node: NodeProto) -> str | None:
        conv = convolution_before(graph, node)
        if conv is None:
            return NO_CONVOLUTION
        if graph.only_consumer(conv.output[0]) is None:
            return READ_ELSEWHERE
        if channel_affine(graph, node, conv.output[0]) is None or not _has_constant_weights(graph, conv):
            return NOT_CONSTANT
        return CALLED_TWICE if len(graph.consumers[conv.input[1]]) > 1 else None

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        conv = convolution_before(graph, node)
        affine = conv and channel_affine(graph, node, conv.output[0])
        assert conv is not None
        assert affine is not None
        scale, shift = affine
        name = conv.input[1]
        kernel = np.asarray(graph.constant(name), np.float64)
        bias = graph.constant(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(scale))
        wide_bias = np.asarray(bias, np.float64) * scale + shift
        scaled = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
        graph.set_constant(name, scaled.astype(np.float32))
        graph.set_constant(f"{name}/bias", wide_bias.astype(np.float32))
        graph.set_input(conv, 2, f"{name}/bias")
        graph.remove(node)
        graph.set_output(conv, node.output[0])
        return 1


def convolution_before(graph: Graph, node: NodeProto) -> NodeProto | None:
    """The convolution whose result a node reads, or None."""
    makers = (graph.producers.get(name) for name in node.input)
    return next((maker for maker in makers if maker is not None and maker.op_type == "Conv"), None)


def _maps_channels_of_a_convolution(graph: Graph, node: NodeProto) -> bool:
    conv = convolution_before(graph, node)
    affine = conv and channel_affine(graph, node, conv.output[0])
    kernel = conv and graph.constants.get(conv.input[1])
    return affine is not None and (kernel is None or len(affine[0]) == kernel.dims[0])


def _has_constant_weights(graph: Graph, conv: NodeProto) -> bool:
    return all(name in graph.constants for name in conv.input[1:] if name)


def channel_affine(graph: Graph, node: NodeProto, data: str) -> tuple[Array, Array] | None:
    """`(scale, shift)` in float64 per channel if the node maps `data` by constants along axis 1."""
    if node.op_type == "BatchNormalization":
        values = [graph.constant(name) for name in node.input[1:5]]
        if node.input[0] != data or any(value is None for value in values) or len(node.output) > 1:
            return None
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
        spread = variance + float(str(attribute(node, "epsilon", 1e-5)))
        if not (spread > 0).all():  # no variance: it would be NaN
            return None
        scale = gamma / np.sqrt(spread)
        return scale, beta - mean * scale
    if node.op_type not in ("Mul", "Add"):
        return None
    other = [name for name in node.input if name != data]
    constant = graph.constant(other[0]) if len(other) == 1 else None
    if constant is None or constant.ndim not in (3, 4) or constant.size != constant.shape[-3]:
        return None
    value = np.asarray(constant, np.float64).reshape(-1)
    return (value, np.zeros_like(value)) if node.op_type == "Mul" else (np.ones_like(value), value)
