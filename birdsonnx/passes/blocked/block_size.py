"""How many channels a block of this processor has, found by trying."""

import functools

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from birdsonnx.passes.blocked.kernels import block_channels
from birdsonnx.runtime.sessions import Session

BLOCKED_DOMAIN = "com.microsoft.nchwc"
"""Of the runtime's own operators on blocks of channels."""
CHANNELS, SIZE = 16, 3
"""Of the map, and the size of the kernel, that are tried with."""

Map = npt.NDArray[np.float32]


@functools.cache
def block_size() -> int:
    """8 or 16 channels; 1 where the runtime has no blocked kernels for this processor."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((1, CHANNELS, SIZE, SIZE)).astype(np.float32)
    kernel = generator.standard_normal((CHANNELS, CHANNELS, SIZE, SIZE)).astype(np.float32)
    expected = _convolved(images, kernel)
    for block in (16, 8):
        try:
            found = _convolved_in_blocks(images, kernel, block)
        except Exception:  # the runtime has no such kernel here; whatever it raises, the plain form works
            continue
        if np.allclose(found, expected, atol=1e-4):
            return block
    return 1


def _convolved(images: Map, kernel: Map) -> npt.NDArray[np.float64]:
    """By a plain loop, float64 `[channels, height, width]`."""
    result = np.zeros((CHANNELS, SIZE, SIZE))
    padded = np.pad(images[0], ((0, 0), (1, 1), (1, 1)))
    for row in range(SIZE):
        for column in range(SIZE):
            window = padded[:, row : row + SIZE, column : column + SIZE]
            result += np.einsum("oi,ihw->ohw", kernel[:, :, row, column], window)
    return result


def _convolved_in_blocks(images: Map, kernel: Map, block: int) -> Map:
    """By the runtime's blocked kernels. Raises whatever the runtime raises where it has none."""
    values = (("x", images.shape), ("w", kernel.shape), ("y", images.shape))
    x, w, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values)
    node = helper.make_node("Conv", ["x", "w"], ["y"], domain=BLOCKED_DOMAIN, pads=[1, 1, 1, 1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(BLOCKED_DOMAIN, 1)]
    graph = helper.make_graph([node], "probe", [x, w], [y])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    split = images.reshape(1, CHANNELS // block, block, SIZE, SIZE).transpose(0, 1, 3, 4, 2)
    feeds = {"x": split.reshape(images.shape), "w": block_channels(kernel, block).reshape(kernel.shape)}
    session = Session(model.SerializeToString())
    found = session.run({name: np.ascontiguousarray(value) for name, value in feeds.items()})["y"]
    apart = found.reshape(CHANNELS // block, SIZE, SIZE, block).transpose(0, 3, 1, 2)
    return apart.reshape(CHANNELS, SIZE, SIZE)
