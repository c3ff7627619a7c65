"""AveragePool, whose gradient ends the process, as a depthwise convolution with a constant kernel.

The mean of a window of k values is their sum of products with `1 / k`. Where padding does not count, windows
at the border have fewer values: the convolution sums them, and a product with a constant map, `1 / values per
window`, makes means of the sums.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import Array, attribute, integers, pads_are_given

UNKNOWN_SIZE = "the size of its input is not known"
BEYOND = "its windows reach beyond the padding, have gaps, or pad what is computed from the input's size"


class AveragePoolAsConvolution:
    """Looks at the AveragePools after a trained weight.

    Args:
        trained: the tensors that depend on a trained weight.
        shapes: of one photo's values, by tensor.
    """

    done = "average pool as a convolution"
    subject = "average pool"

    def __init__(self, trained: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._trained, self._shapes = trained, shapes

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node for node in graph.nodes() if node.op_type == "AveragePool" and node.input[0] in self._trained
        )

    def check(self, _: Editor, pool: NodeProto) -> str | None:
        if len(self._shapes.get(pool.input[0], ())) < 2:
            return UNKNOWN_SIZE
        dilated = max(integers(pool, "dilations", 1)) > 1
        return BEYOND if not pads_are_given(pool) or attribute(pool, "ceil_mode", 0) or dilated else None

    def rewrite(self, graph: Editor, pool: NodeProto) -> int:
        data, output = pool.input[0], pool.output[0]
        channels, *size = self._shapes[data]
        kernel, strides = integers(pool, "kernel_shape", 1), integers(pool, "strides", 1, len(size))
        pads = integers(pool, "pads", 0, 2 * len(size))
        alike = not any(pads) or attribute(pool, "count_include_pad", 0) == 1
        weight = 1 / math.prod(kernel) if alike else 1.0
        summed = output if alike else f"{output}/sums"
        graph.set_constant(f"{output}/mean", np.full((channels, 1, *kernel), weight, np.float32))
        attributes = {"kernel_shape": kernel, "pads": pads, "strides": strides, "group": channels}
        nodes = [helper.make_node("Conv", [data, f"{output}/mean"], [summed], name=pool.name, **attributes)]
        if not alike:
            graph.set_constant(f"{output}/share", 1 / _values_per_window(size, kernel, pads, strides))
            share = f"{pool.name}/share"
            nodes.append(helper.make_node("Mul", [summed, f"{output}/share"], [output], name=share))
        graph.replace(pool, *nodes)
        return 1


def _values_per_window(
    size: Sequence[int], kernel: Sequence[int], pads: Sequence[int], strides: Sequence[int]
) -> Array:
    """How many values of a map, not of its padding, each window sees: float32 `[1, 1, *map]`."""
    counts: Array = np.ones((), np.float32)
    for axis, side in enumerate(size):
        padded = np.pad(np.ones(side, np.float32), (pads[axis], pads[axis + len(size)]))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel[axis])[:: strides[axis]]
        counts = counts[..., None] * windows.sum(axis=1)
    return counts[None, None]
