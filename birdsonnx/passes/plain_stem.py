"""The stem of an int8 model over pixels instead of blocks of pixels, for engines that are faster so.

`stem` lets the first convolution of an int8 model read blocks of s x s pixels with a stride of 1, which suits
ONNX Runtime. Here each weight goes back to its pixel: the same integers at other places, plus taps of 0, so
that every sum of integers stays the same. The channels of `FULL` of a row of a block are shared out among its
pixels: a block lies wholly inside the photo or wholly outside.

For use in memory only: the file is written for ONNX Runtime.
"""

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, helper

from birdsonnx.model.edits import Editor, drop_unused, set_attribute
from birdsonnx.model.graph import Array, integers
from birdsonnx.model.metadata import INPUT
from birdsonnx.passes.rewriting import Report, apply
from birdsonnx.passes.stem import FULL, STEM, further_channels

PLAIN = f"{STEM}plain/"

NOT_INT8 = "its weights are not constant integers around 0"
NOT_OURS = "it is not made of blocks of pixels as quantising makes it"


class PixelsForBlocks:
    """Looks at the convolution that reads blocks of pixels."""

    done = "stem over pixels"
    subject = "stem over blocks"

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        """The convolution that reads what `stem` makes of the photo."""
        readers = [node for node in graph.nodes() if node.op_type == "Conv" and _blocks(graph, node)]
        yield from readers[:1]

    def check(self, graph: Editor, conv: NodeProto) -> str | None:
        weights = _weights(graph, conv)
        if weights is None:
            return NOT_INT8
        blocks = _blocks(graph, conv)
        assert blocks is not None
        block, row, further = blocks
        channels = int(graph.constants[weights.input[0]].dims[1])
        right = channels == block * (row + further) and set(integers(conv, "strides", 1)) == {1}
        return None if right else NOT_OURS

    def rewrite(self, graph: Editor, conv: NodeProto) -> int:
        weights, blocks = _weights(graph, conv), _blocks(graph, conv)
        assert weights is not None
        assert blocks is not None
        block, row, further = blocks
        kernel = np.asarray(graph.constant(weights.input[0]))
        pixels = _over_pixels(kernel, block, row, further)
        added = pixels.shape[1] - row // block
        pads = [each * block for each in integers(conv, "pads", 0, 4)]
        pixels, pads = _without_empty_taps(pixels, pads)
        graph.set_constant(f"{PLAIN}kernel", pixels)
        graph.set_input(weights, 0, f"{PLAIN}kernel")
        given = {"kernel_shape": [*pixels.shape[2:]], "strides": [block, block], "pads": pads}
        for name, value in given.items():
            set_attribute(conv, name, value)
        graph.set_input(graph.producers[conv.input[0]], 0, f"{PLAIN}pixels")
        graph.set_constant(f"{PLAIN}amounts", np.array([0] * 7 + [added], np.int64))
        graph.set_constant(f"{PLAIN}full", np.array(FULL, np.uint8))
        padded = helper.make_node(
            "Pad", [INPUT, f"{PLAIN}amounts", f"{PLAIN}full"], [f"{PLAIN}padded"], name=f"{PLAIN}padded"
        )
        first = helper.make_node(
            "Transpose", [f"{PLAIN}padded"], [f"{PLAIN}pixels"], name=f"{PLAIN}pixels", perm=[0, 3, 1, 2]
        )
        graph.insert_first(padded, first)
        return 1


def pixels_for_blocks(model: ModelProto) -> Report:
    """Let the stem of an int8 model read pixels, in place; a model without blocks stays as it is."""
    report = apply(PixelsForBlocks(), model.graph)
    if report.applied:
        drop_unused(model.graph)
    return report


def _blocks(graph: Editor, conv: NodeProto) -> tuple[int, int, int] | None:
    """`(pixels along a side of a block, channels of a row of pixels in it, channels of FULL after those)`;
    None where the convolution does not read what `stem` makes."""
    source = graph.producers.get(conv.input[0])
    if source is None or source.op_type != "DequantizeLinear" or not source.input[0].startswith(STEM):
        return None
    first = next((node for node in graph.consumers.get(INPUT, []) if node.name == f"{STEM}reshape_0"), None)
    shape = None if first is None else graph.constant(first.input[1])
    if shape is None or len(shape) != 5:
        return None
    block, row = int(shape[2]), int(shape[4])
    return block, row, further_channels(row)


def _weights(graph: Editor, conv: NodeProto) -> NodeProto | None:
    """The node that makes the weights out of int8 around 0, which nothing else reads."""
    source = graph.producers.get(conv.input[1])
    if source is None or source.op_type != "DequantizeLinear" or len(source.input) < 3:
        return None
    kernel, zero = graph.constant(source.input[0]), graph.constant(source.input[2])
    if kernel is None or zero is None or kernel.dtype != np.int8 or zero.any():
        return None
    return source if len(graph.consumers[source.output[0]]) == 1 else None


def _over_pixels(kernel: Array, block: int, row: int, further: int) -> Array:
    """From weights over blocks, `[filters, block * (row + further), high, wide]`, to weights over pixels,
    `[filters, channels + added, high * block, wide * block]`."""
    filters, _, high, wide = kernel.shape
    channels, added = row // block, -(-further // block)
    rows = kernel.reshape(filters, block, row + further, high, wide)
    pixels = np.zeros((filters, block, block, channels + added, high, wide), kernel.dtype)
    pixels[:, :, :, :channels] = rows[:, :, :row].reshape(filters, block, block, channels, high, wide)
    for number in range(further):  # one after the other over the row's pixels
        pixels[:, :, number % block, channels + number // block] = rows[:, :, row + number]
    in_place = pixels.transpose(0, 3, 4, 1, 5, 2)
    return np.ascontiguousarray(in_place.reshape(filters, channels + added, high * block, wide * block))


def _without_empty_taps(kernel: Array, pads: list[int]) -> tuple[Array, list[int]]:
    """Without the rows and columns of 0 that lie in the padding anyway."""
    begin, end = pads[:2], pads[2:]
    for axis in (0, 1):
        used = np.flatnonzero(kernel.any(axis=(0, 1, 3 - axis)))
        if not len(used):
            continue
        first = min(int(used[0]), begin[axis])
        last = min(kernel.shape[2 + axis] - 1 - int(used[-1]), end[axis])
        kernel = np.take(kernel, range(first, kernel.shape[2 + axis] - last), axis=2 + axis)
        begin[axis] -= first
        end[axis] -= last
    return np.ascontiguousarray(kernel), [*begin, *end]
