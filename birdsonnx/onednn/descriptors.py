"""Memory descriptors: how the values of a tensor lie in memory."""

import weakref
from collections.abc import Sequence
from ctypes import byref, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.onednn.library import Library, sizes

UNDEFINED, BF16, F32 = 0, 2, 3
"""Types of data."""
ANY = 1
"""The format that a kernel may choose."""
BYTES = {BF16: 2, F32: 4}


class Descriptor:
    """Shape, type and format of a tensor; dimensions are always in the order `[batch, channels, height,
    width]`, whatever their order in memory."""

    def __init__(self, library: Library, handle: c_void_p, shape: Sequence[int], kind: int) -> None:
        self._library, self.handle = library, handle
        self.shape, self.kind = tuple(shape), kind
        self.bytes: int = library.function("dnnl_memory_desc_get_size")(handle)
        weakref.finalize(self, library.function("dnnl_memory_desc_destroy"), handle)

    def same_as(self, other: "Descriptor") -> bool:
        """Whether bytes in this format need no reordering to be in the other one."""
        return bool(self._library.function("dnnl_memory_desc_equal")(self.handle, other.handle))

    def part(self, shape: Sequence[int], start: Sequence[int]) -> "Descriptor":
        """The piece of this shape that begins at these indices; its address is still that of the whole."""
        create = "dnnl_memory_desc_create_submemory"
        handle = self._library.made(create, self.handle, sizes(shape), sizes(start))
        return Descriptor(self._library, handle, shape, self.kind)


def strided(library: Library, shape: Sequence[int], strides: Sequence[int], kind: int) -> Descriptor:
    """A tensor whose neighbours along each axis lie so many values apart."""
    create = "dnnl_memory_desc_create_with_strides"
    handle = library.made(create, len(shape), sizes(shape), kind, sizes(strides))
    return Descriptor(library, handle, shape, kind)


def channels_last(library: Library, shape: Sequence[int], kind: int) -> Descriptor:
    """`[batch, channels, height, width]`, the channels of a pixel beside each other."""
    _, channels, height, width = shape
    strides = (height * width * channels, 1, width * channels, channels)
    return strided(library, shape, strides, kind)


def row_major(library: Library, shape: Sequence[int], kind: int) -> Descriptor:
    """As NumPy lays a tensor out, the last axis fastest."""
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return strided(library, shape, strides, kind)


def of_array(library: Library, array: npt.NDArray[np.float32], groups: int = 1) -> Descriptor:
    """A float32 array as it lies in memory; with groups, the first axis is divided into them."""
    shape, strides = list(array.shape), [step // array.itemsize for step in array.strides]
    if groups > 1:
        each = shape[0] // groups
        shape, strides = [groups, each, *shape[1:]], [each * strides[0], *strides]
    return strided(library, shape, strides, F32)


def of_any_format(library: Library, shape: Sequence[int], kind: int) -> Descriptor:
    """For a kernel that is to choose."""
    handle = library.made("dnnl_memory_desc_create_with_tag", len(shape), sizes(shape), kind, ANY)
    return Descriptor(library, handle, shape, kind)


def copied(library: Library, handle: Any, shape: Sequence[int], kind: int) -> Descriptor:
    """Of a descriptor that belongs to something else."""
    mine = c_void_p()
    library("dnnl_memory_desc_clone", byref(mine), handle)
    return Descriptor(library, mine, shape, kind)
