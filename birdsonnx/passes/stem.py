"""The preprocessing inside the first convolution, so that an int8 network starts on the photo's own uint8.

A convolution of preprocessed pixels, `sum w (scale p + offset)`, is one of pixels with weights `w scale`,
plus `sum w offset` over those taps that lie inside the photo: outside, Keras pads the preprocessed values
with 0. So the constant cannot be a bias. It becomes the weights of further channels that hold 255 wherever
there is a photo and, like all channels, 0 in the padding.

With a stride s the convolution reads blocks of s x s pixels (space to depth): the kernel is padded with taps
of 0 to whole blocks, and its stride becomes 1. With ResNet50 16 channels and 4 x 4 taps instead of 3 and
7 x 7. In int8 that takes 0.9 instead of 1.4 ms (one core, with VNNI); in float32 it is slower, which is why
only quantisation does it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from birdsonnx.model.edits import Editor, drop_unused, set_attribute
from birdsonnx.model.graph import Array, Graph, attribute, integers, pads_are_given
from birdsonnx.model.metadata import INPUT
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.passes.rewriting import Report, apply
from birdsonnx.passes.uint8_input import NETWORK_INPUT, PREPROCESS

STEM = "stem/"
PIXELS = f"{STEM}pixels"
"""The float32 tensor that holds the photo's values 0-255: scale 1 and zero point 0 fit it exactly."""
FULL = 255
"""What the further channels hold wherever there is a photo."""

SEVERAL_READERS = "several layers read the photo"
NO_CONVOLUTION = "the network does not begin with a convolution"
NOT_PLAIN = "its first convolution has groups, dilations, computed pads or a computed kernel"
UNEVEN = "the strides of its first convolution do not divide the photo into square blocks"
CUT_OFF = "its first convolution leaves out whole blocks of the photo"


class _Axis(NamedTuple):
    """What computes the same outputs along one axis of the photo, in blocks."""

    before: int
    """Blocks of padding before the photo."""
    size: int
    """Blocks that the kernel sees."""
    after: int
    """Blocks of padding after the photo."""
    shift: int
    """Taps of 0 before those of the kernel."""


class FoldPreprocessing:
    """Looks at the layer that reads the photo."""

    done = "preprocessing in the stem"
    subject = "preprocessing"

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        yield from graph.consumers.get(NETWORK_INPUT, [])[:1]

    def check(self, graph: Editor, conv: NodeProto) -> str | None:
        if graph.only_consumer(NETWORK_INPUT) is None:
            return SEVERAL_READERS
        if conv.op_type != "Conv":
            return NO_CONVOLUTION
        plain = pads_are_given(conv) and attribute(conv, "group", 1) == 1
        if not plain or graph.constant(conv.input[1]) is None or set(integers(conv, "dilations", 1)) != {1}:
            return NOT_PLAIN
        strides = integers(conv, "strides", 1)
        height, width, _ = _photo(graph)
        if len(set(strides)) > 1 or height % strides[0] or width % strides[0]:
            return UNEVEN
        return CUT_OFF if any(axis.after < 0 for axis in _axes(graph, conv)) else None

    def rewrite(self, graph: Editor, conv: NodeProto) -> int:
        kernel = graph.constant(conv.input[1])
        assert kernel is not None
        block = integers(conv, "strides", 1)[0]
        photo = _photo(graph)
        down, across = _axes(graph, conv)
        further = _further(block * photo[2])
        graph.remove(*(node for node in graph.nodes() if node.name.startswith(PREPROCESS)))
        if graph.only_consumer(conv.input[1]) is None:  # another node has the same weights, and keeps them
            graph.set_input(conv, 1, f"{STEM}kernel")
        pixels, inside = _over_pixels(kernel, self._preprocessing)
        size, shift = (down.size, across.size), (down.shift, across.shift)
        graph.set_constant(conv.input[1], _over_blocks(pixels, inside, block, size, shift, further))
        graph.insert_first(*_pixels_in_blocks(graph, photo, block, further))
        graph.set_input(conv, 0, PIXELS)
        pads = [down.before, across.before, down.after, across.after]
        given = {"auto_pad": "NOTSET", "kernel_shape": [*size], "strides": [1, 1], "pads": pads}
        for name, value in given.items():
            set_attribute(conv, name, value)
        return 1


def fold_preprocessing_into_stem(proto: GraphProto, preprocessing: Preprocessing) -> Report:
    """Let the first convolution read pixels instead of preprocessed values; with a stride, blocks of
    pixels."""
    report = apply(FoldPreprocessing(preprocessing), proto)
    if report.applied:
        drop_unused(proto)
    return report


def _photo(graph: Graph) -> tuple[int, int, int]:
    """Height, width and channels."""
    height, width, channels = (dim.dim_value for dim in graph.proto.input[0].type.tensor_type.shape.dim[1:])
    return height, width, channels


def _axes(graph: Graph, conv: NodeProto) -> tuple[_Axis, _Axis]:
    """Down and across the photo."""
    taps = graph.constants[conv.input[1]].dims[2:]
    (height, width, _), pads = _photo(graph), integers(conv, "pads", 0, 4)
    block = integers(conv, "strides", 1)[0]
    return (
        _in_blocks(height, taps[0], pads[0], pads[2], block),
        _in_blocks(width, taps[1], pads[1], pads[3], block),
    )


def mean_pixels(preprocessing: Preprocessing, channels: int) -> Array:
    """What the channels of `PIXELS` hold where the network would see 0; float64 `[channels]`."""
    of_pixel = -np.asarray(preprocessing.offset) / np.asarray(preprocessing.scale)
    of_pixel = of_pixel[:: -1 if preprocessing.bgr else 1]
    for block in range(1, channels + 1):  # its size follows from the number of channels
        row = block * len(of_pixel)
        further = _further(row)
        if block * (row + further) == channels:
            return np.tile(np.append(np.tile(of_pixel, block), np.full(further, FULL)), block)
    raise ValueError(f"{channels} channels are no blocks of {len(of_pixel)}-channel pixels")


def _further(row: int) -> int:
    """How many channels of `FULL` follow a row of a block: rows then lie at multiples of 4 bytes."""
    return 4 - row % 4


def _in_blocks(size: int, taps: int, begin: int, end: int, block: int) -> _Axis:
    """The axis of a photo of so many pixels, under a kernel of so many taps with these pads."""
    before = -(-begin // block)
    shift = before * block - begin
    kernel = -(-(taps + shift) // block)
    outputs = (size + begin + end - taps) // block + 1
    return _Axis(before, kernel, outputs - 1 + kernel - before - size // block, shift)


def _over_pixels(kernel: Array, preprocessing: Preprocessing) -> tuple[Array, Array]:
    """Weights on pixels in the photo's order, `[filters, channels, …]`, and on 1 wherever there is a photo,
    `[filters, 1, …]`; float64."""
    scale, offset = (
        np.asarray(numbers, np.float64).reshape(1, -1, 1, 1)
        for numbers in (preprocessing.scale, preprocessing.offset)
    )
    wide = kernel.astype(np.float64)
    return (wide * scale)[:, :: -1 if preprocessing.bgr else 1], (wide * offset).sum(1, keepdims=True)


def _over_blocks(
    pixels: Array, inside: Array, block: int, size: tuple[int, int], shift: tuple[int, int], further: int
) -> Array:
    """The kernel over blocks, float32 `[filters, block * (block * channels + further), *size]`.

    A row of a block holds its pixels, then `further` channels of `FULL`, which share what its pixels' offsets
    add up to, so that no weight is much larger than the others of its filter.
    """

    def rows(kernel: Array) -> Array:
        """`[filters, row of the block, column of the block x channel, *size]`."""
        filters, channels, high, wide = kernel.shape
        taps = np.zeros((filters, channels, size[0] * block, size[1] * block))
        taps[:, :, shift[0] : shift[0] + high, shift[1] : shift[1] + wide] = kernel
        apart = taps.reshape(filters, channels, size[0], block, size[1], block)
        return apart.transpose(0, 3, 5, 1, 2, 4).reshape(filters, block, -1, *size)

    constant = rows(inside).sum(2, keepdims=True) / (FULL * further)
    joined = np.concatenate([rows(pixels), constant.repeat(further, axis=2)], axis=2)
    return joined.reshape(len(pixels), -1, *size).astype(np.float32)


def _pixels_in_blocks(
    graph: Editor, photo: tuple[int, int, int], block: int, further: int
) -> list[NodeProto]:
    """Nodes from `images` to `PIXELS`, all on uint8 but the last.

    Padding the rows of blocks takes 0.2 ms for all of it (224 x 224, one core); padding each pixel 0.4.
    """
    height, width, channels = photo
    rows, columns, row = height // block, width // block, block * channels
    nodes: list[NodeProto] = []

    def then(operation: str, *constants: tuple[str, Array], **attributes: object) -> None:
        name = f"{STEM}{operation.lower()}_{len(nodes)}"
        for role, value in constants:
            graph.set_constant(f"{name}/{role}", value)
        source = nodes[-1].output[0] if nodes else INPUT
        inputs = [source, *(f"{name}/{role}" for role, _ in constants)]
        nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))

    then("Reshape", ("shape", np.array([0, rows, block, columns, row], np.int64)))
    amounts = np.array([0] * 9 + [further], np.int64)
    then("Pad", ("pads", amounts), ("value", np.array(FULL, np.uint8)))
    then("Transpose", perm=[0, 1, 3, 2, 4])
    then("Reshape", ("shape", np.array([0, rows, columns, block * (row + further)], np.int64)))
    then("Transpose", perm=[0, 3, 1, 2])
    then("Cast", to=TensorProto.FLOAT)
    nodes[-1].output[0] = PIXELS
    return nodes
