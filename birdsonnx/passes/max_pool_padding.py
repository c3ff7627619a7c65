"""A zero Pad between Relu and MaxPool, given to the MaxPool: 5 to 9 % of an int8 run.

A MaxPool pads with minus infinity, the Pad with 0. Each window of these pads holds at least one value of the
Relu, and that is 0 or more: `max(0, v) = max(-inf, v) = v` for `v >= 0`. Not so for a window that lies wholly
in the padding, nor where values may be negative.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from birdsonnx.model.edits import Editor, set_attribute
from birdsonnx.model.graph import Graph, attribute, integers, pads_are_given

NEGATIVE_VALUES = "no Relu before it, and negative values lose against zeros"
NOT_ZEROS = "it does not pad with zeros alone"
OTHER_AXES = "it pads other axes, or cuts off"
TOO_WIDE = "some windows see padding alone"
POOL_PADS = "the pool has padding of its own"
READ_ELSEWHERE = "its result is read elsewhere too"


class PadIntoMaxPool:
    """Looks at each Pad that a MaxPool reads."""

    done = "pad into max pool"
    subject = "pad before max pool"

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node for node in graph.nodes() if node.op_type == "Pad" and _pool_after(graph, node) is not None
        )

    def check(self, graph: Editor, pad: NodeProto) -> str | None:
        source, pool = graph.producers.get(pad.input[0]), _pool_after(graph, pad)
        assert pool is not None
        if graph.only_consumer(pad.output[0]) is None:
            return READ_ELSEWHERE
        if source is None or source.op_type != "Relu":
            return NEGATIVE_VALUES
        amounts = graph.constant(pad.input[1])
        value = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        constant = attribute(pad, "mode", b"constant") == b"constant"
        if amounts is None or value is None or np.any(value != 0) or not constant:
            return NOT_ZEROS
        if not pads_are_given(pool) or any(integers(pool, "pads", 0)):
            return POOL_PADS
        begin, end = np.split(amounts.astype(np.int64), 2)
        if len(pad.input) > 3 or (amounts < 0).any() or begin[:2].any() or end[:2].any():
            return OTHER_AXES
        too_wide = np.maximum(begin, end)[2:] >= np.asarray(attribute(pool, "kernel_shape"))
        return TOO_WIDE if too_wide.any() else None

    def rewrite(self, graph: Editor, pad: NodeProto) -> int:
        pool, amounts = _pool_after(graph, pad), graph.constant(pad.input[1])
        assert pool is not None
        assert amounts is not None
        begin, end = np.split(amounts.astype(np.int64), 2)
        set_attribute(pool, "auto_pad", "NOTSET")
        set_attribute(pool, "pads", [*begin[2:].tolist(), *end[2:].tolist()])
        graph.bypass(pad)
        return 1


def _pool_after(graph: Graph, pad: NodeProto) -> NodeProto | None:
    readers = graph.consumers.get(pad.output[0], [])
    return next((reader for reader in readers if reader.op_type == "MaxPool"), None)
