"""int8 weights as uint8 around 128, for CPUs whose kernels for int8 weights are slower, or wrong.

A quantised weight stands for `scale (w - zero)`. With `w + 128` and a zero point of 128 it stands for the
same number, and sums of integers are exact, so that not a bit of the right answer changes.

With AMX the runtime still computes convolutions of symmetric int8 weights (a zero point of 0) by VNNI; only
its general matrix product uses AMX: 8.5 instead of 11.6 ms a photo of ResNet50 on one core, where sums are
long. Without VNNI, its kernels for int8 weights add two products in 16 bits, where they do not always fit,
and cut off what is over: a small network's log-probabilities were off by 0.07. Those for uint8 weights
do not.

For use in memory only: with VNNI alone it is slower, and the file must be good everywhere.
"""

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from birdsonnx.model.edits import Editor, drop_unused
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


class Uint8Weights:
    """Looks at each layer of quantised weights, or only at convolutions whose sums are long."""

    def __init__(self, long_sums_only: bool) -> None:
        self._long_sums_only = long_sums_only
        self.done = "sums on AMX" if long_sums_only else "weights as uint8"
        self.subject = "long sums" if long_sums_only else "int8 weights"

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        """The DequantizeLinear of each such layer's weights."""
        seen: set[str] = set()
        for node in graph.nodes():
            source = _quantized_weights(graph, node)
            if source is None or source.input[0] in seen:
                continue
            if not self._long_sums_only or (node.op_type == "Conv" and _is_long(graph, source)):
                seen.add(source.input[0])
                yield source

    def check(self, graph: Editor, source: NodeProto) -> str | None:
        weights, _, zero = source.input
        if graph.constants[weights].data_type != TensorProto.INT8 or np.any(graph.constant(zero)):
            return NOT_SYMMETRIC
        alone = all(reader.op_type == "DequantizeLinear" for reader in graph.consumers[weights])
        return None if alone else SHARED

    def rewrite(self, graph: Editor, source: NodeProto) -> int:
        weights, _, zero = source.input
        values = np.asarray(graph.constant(weights), np.int16)
        dims = tuple(graph.constants[zero].dims)
        graph.set_constant(weights, (values + MIDDLE).astype(np.uint8))
        # Under a name of its own: a zero point may be that of other tensors too.
        graph.set_constant(f"{weights}/middle", np.full(dims, MIDDLE, np.uint8))
        for reader in list(graph.consumers[weights]):
            graph.set_input(reader, 2, f"{weights}/middle")
        return 1


def sums_on_amx(model: ModelProto) -> Report:
    """Give the convolutions with long sums to AMX, in place."""
    return _rewritten(model, Uint8Weights(long_sums_only=True))


def exact_sums(model: ModelProto) -> Report:
    """Let every layer be summed exactly on a CPU without VNNI, in place."""
    return _rewritten(model, Uint8Weights(long_sums_only=False))


def _rewritten(model: ModelProto, each: Uint8Weights) -> Report:
    report = apply(each, model.graph)
    if report.applied:
        drop_unused(model.graph)  # the old zero points, of which the runtime would warn
    return report


def _quantized_weights(graph: Graph, node: NodeProto) -> NodeProto | None:
    """The node that makes a layer's weights out of constant integers, or None where there is none."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    source = graph.producers.get(node.input[1])
    if source is None or source.op_type != "DequantizeLinear" or len(source.input) < 3:
        return None
    return source if all(name in graph.constants for name in source.input) else None


def _is_long(graph: Graph, source: NodeProto) -> bool:
    shape = graph.constants[source.input[0]].dims
    long = LONG_POINTWISE_SUM if set(shape[2:]) == {1} else LONG_SUM
    return int(np.prod(shape[1:])) >= long
