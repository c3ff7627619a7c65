"""Long int8 sums given to the runtime's AMX kernels: int8 weights as uint8 around 128.

A quantised weight stands for `scale (w - zero)`. With `w + 128` and a zero point of 128 it stands for the
same number, and sums of integers are exact, so that not a bit changes.

The runtime computes convolutions with symmetric int8 weights (a zero point of 0) by VNNI even where there is
AMX, which only its general matrix product uses: 8.5 instead of 11.6 ms a photo of ResNet50 on one core. For
use in memory only: without AMX it is slower, and the file must be good everywhere.
"""

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import Graph
from birdsonnx.passes.rewriting import Report, apply

LONG_SUM = 512
"""Products per output from which the AMX kernels win: on ResNet50's shapes 1.1 to 2.4 x from here on, and
down to 0.4 x below, where writing int32 sums takes longer than computing them."""
LONG_POINTWISE_SUM = 256
"""The same for 1 x 1 convolutions, for which no pixels have to be gathered: 1.03 to 2.4 x from here on."""
MIDDLE = 128

SHARED = "its weights are read elsewhere too"
NOT_SYMMETRIC = "its weights are not int8 around 0"


class SumsOnAmx:
    """Looks at each convolution of quantised weights whose sums are long."""

    done = "sums on AMX"
    subject = "long sums"

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (node for node in graph.nodes() if node.op_type == "Conv" and _has_long_sums(graph, node))

    def check(self, graph: Editor, conv: NodeProto) -> str | None:
        weights, _, zero = graph.producers[conv.input[1]].input
        if graph.constants[weights].data_type != TensorProto.INT8 or np.any(graph.constant(zero)):
            return NOT_SYMMETRIC
        alone = all(len(graph.consumers[name]) == 1 for name in (weights, zero))
        return None if alone else SHARED

    def rewrite(self, graph: Editor, conv: NodeProto) -> int:
        weights, _, zero = graph.producers[conv.input[1]].input
        values = np.asarray(graph.constant(weights), np.int16)
        graph.set_constant(weights, (values + MIDDLE).astype(np.uint8))
        graph.set_constant(zero, np.full(tuple(graph.constants[zero].dims), MIDDLE, np.uint8))
        return 1


def sums_on_amx(model: ModelProto) -> Report:
    """Give the convolutions with long sums to AMX, in place."""
    return apply(SumsOnAmx(), model.graph)


def _has_long_sums(graph: Graph, conv: NodeProto) -> bool:
    dequantize = graph.producers.get(conv.input[1])
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or len(dequantize.input) < 3:
        return False
    if any(name not in graph.constants for name in dequantize.input):
        return False
    shape = graph.constants[dequantize.input[0]].dims
    long = LONG_POINTWISE_SUM if set(shape[2:]) == {1} else LONG_SUM
    return int(np.prod(shape[1:])) >= long
