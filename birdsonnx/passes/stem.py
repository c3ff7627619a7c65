"""The preprocessing inside the first convolution, so that an int8 network starts on the photo's own uint8."""

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from birdsonnx.model.graph import (
    Array,
    Graph,
    attribute,
    drop_unused,
    integers,
    pads_are_given,
    remove,
    set_attribute,
    set_constant,
)
from birdsonnx.model.metadata import INPUT
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.passes.uint8_input import NETWORK_INPUT, PREPROCESS

STEM = "stem/"
PIXELS = f"{STEM}pixels"
"""The float32 tensor that holds the photo's values 0-255: scale 1 and zero point 0 fit it exactly."""
FULL = 255
"""What further channels hold wherever there is a photo. Zero padding makes them 0 outside, so their weights
carry the preprocessing's offset exactly there where Keras adds it: inside."""


def fold_preprocessing_into_stem(proto: GraphProto, preprocessing: Preprocessing) -> int:
    """Let the first convolution read pixels instead of preprocessed values; with a stride, blocks of pixels.

    A k x k convolution of stride s over few channels becomes one of stride 1 over blocks of s x s pixels
    (space to depth): 16 channels and 4 x 4 instead of 3 and 7 x 7 with ResNet50. In int8 that takes 0.9
    instead of 1.4 ms (one core, with VNNI); in float32 it is slower, which is why only quantisation does it.

    Returns 1, or 0 where the graph does not begin with one plain convolution whose stride divides the photo.
    """
    graph = Graph(proto)
    conv = graph.only_consumer(NETWORK_INPUT)
    if conv is None or conv.op_type != "Conv" or not pads_are_given(conv) or attribute(conv, "group", 1) != 1:
        return 0
    kernel = graph.constant(conv.input[1])
    strides, dilations = integers(conv, "strides", 1), integers(conv, "dilations", 1)
    pads = integers(conv, "pads", 0, 4)
    height, width, channels = (dim.dim_value for dim in proto.input[0].type.tensor_type.shape.dim[1:])
    block = strides[0]
    if kernel is None or set(strides) != {block} or set(dilations) != {1} or height % block or width % block:
        return 0
    fitted = [
        _in_blocks(size, taps, begin, end, block)
        for size, taps, begin, end in zip((height, width), kernel.shape[2:], pads[:2], pads[2:], strict=True)
    ]
    if any(end < 0 for _, _, end, _ in fitted):
        return 0
    (top, high, bottom, above), (left, wide, right, before) = fitted

    remove(proto, [node for node in proto.node if node.name.startswith(PREPROCESS)])
    further = _further(block * channels)
    pixels = _over_pixels(kernel, preprocessing)
    if graph.only_consumer(conv.input[1]) is None:  # another node has the same weights, and keeps them
        conv.input[1] = f"{STEM}kernel"
    set_constant(proto, conv.input[1], _over_blocks(*pixels, block, (high, wide), (above, before), further))
    nodes = _pixels_in_blocks(proto, (height, width, channels), block, further)
    conv.input[0] = PIXELS
    given = {"kernel_shape": [high, wide], "strides": [1, 1], "pads": [top, left, bottom, right]}
    for name, value in {"auto_pad": "NOTSET", **given}.items():
        set_attribute(conv, name, value)
    network = list(proto.node)
    del proto.node[:]
    proto.node.extend([*nodes, *network])
    drop_unused(proto)
    return 1


def mean_pixels(preprocessing: Preprocessing, channels: int) -> Array:
    """What the channels of `PIXELS` hold where the network would see 0; float64 `[channels]`."""
    of_pixel = -np.asarray(preprocessing.offset) / np.asarray(preprocessing.scale)
    of_pixel = of_pixel[:: -1 if preprocessing.bgr else 1]
    for block in range(1, channels + 1):  # of which size, follows from the number of channels
        row = block * len(of_pixel)
        further = _further(row)
        if block * (row + further) == channels:
            return np.tile(np.append(np.tile(of_pixel, block), np.full(further, FULL)), block)
    raise ValueError(f"{channels} channels are no blocks of {len(of_pixel)}-channel pixels")


def _further(row: int) -> int:
    """Channels of `FULL` behind a row of a block: rows then lie at multiples of 4 bytes."""
    return 4 - row % 4


def _in_blocks(size: int, taps: int, begin: int, end: int, block: int) -> tuple[int, int, int, int]:
    """What computes the same outputs along one axis: `(blocks of padding in front, blocks of the kernel,
    blocks of padding behind, taps of 0 in front)`."""
    front = -(-begin // block)
    shift = front * block - begin
    kernel = -(-(taps + shift) // block)
    outputs = (size + begin + end - taps) // block + 1
    return front, kernel, outputs - 1 + kernel - front - size // block, shift


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
    proto: GraphProto, photo: tuple[int, int, int], block: int, further: int
) -> list[NodeProto]:
    """Nodes from `images` to `PIXELS`, all on uint8 but the last.

    Padding the rows of blocks and not the pixels takes 0.2 ms for all of it (224 x 224, one core), not 0.4.
    """
    height, width, channels = photo
    rows, columns, row = height // block, width // block, block * channels
    nodes: list[NodeProto] = []
    tensor = INPUT

    def then(operation: str, *constants: tuple[str, Array], **attributes: object) -> None:
        nonlocal tensor
        name = f"{STEM}{operation.lower()}_{len(nodes)}"
        for role, value in constants:
            set_constant(proto, f"{name}/{role}", value)
        inputs = [tensor, *(f"{name}/{role}" for role, _ in constants)]
        nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        tensor = name

    then("Reshape", ("shape", np.array([0, rows, block, columns, row], np.int64)))
    amounts = np.array([0] * 9 + [further], np.int64)
    then("Pad", ("pads", amounts), ("value", np.array(FULL, np.uint8)))
    then("Transpose", perm=[0, 1, 3, 2, 4])
    then("Reshape", ("shape", np.array([0, rows, columns, block * (row + further)], np.int64)))
    then("Transpose", perm=[0, 3, 1, 2])
    then("Cast", to=TensorProto.FLOAT)
    nodes[-1].output[0] = PIXELS
    return nodes
