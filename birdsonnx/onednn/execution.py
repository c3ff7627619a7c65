"""Primitives bound to memory, and run."""

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.onednn.descriptors import Descriptor
from birdsonnx.onednn.library import Library
from birdsonnx.onednn.primitives import SCRATCHPAD, Primitive

ALIGNMENT = 64
"""Bytes: a cache line, and the widest load."""


class _Argument(ctypes.Structure):
    """`dnnl_exec_arg_t`."""

    _fields_ = (("place", ctypes.c_int), ("memory", ctypes.c_void_p))


class Memory:
    """A tensor's format and address, as the library wants them."""

    def __init__(self, library: Library, descriptor: Descriptor, address: int) -> None:
        self.handle = library.made("dnnl_memory_create", descriptor.handle, library.engine, address)
        self._set = library.function("dnnl_memory_set_data_handle")
        weakref.finalize(self, library.function("dnnl_memory_destroy"), self.handle)

    def move(self, address: int) -> None:
        self._set(self.handle, address)


class Call:
    """A primitive and its tensors."""

    def __init__(self, library: Library, primitive: Primitive) -> None:
        self._library, self._primitive = library, primitive
        self._execute = library.function("dnnl_primitive_execute")
        self._memories: dict[int, Memory] = {}
        self._arguments: Any = None

    def with_scratch(self, memory: npt.NDArray[np.uint8] | None = None) -> "Call":
        """Give the primitive what it needs beside its tensors: this memory, or some of its own."""
        wanted = self._primitive.scratchpad
        if wanted.bytes:
            self._scratch = aligned(wanted.bytes) if memory is None else memory
            self.bind(SCRATCHPAD, wanted, self._scratch.ctypes.data)
        return self

    def bind(self, place: int, descriptor: Descriptor, address: int) -> Memory:
        """Give an argument its memory."""
        self._memories[place] = memory = Memory(self._library, descriptor, address)
        entries = [_Argument(key, each.handle.value) for key, each in self._memories.items()]
        self._arguments = (_Argument * len(entries))(*entries)
        return memory

    def __call__(self, stream: ctypes.c_void_p | None = None) -> None:
        """Run, on the stream of this thread, which is looked up if it is not given. Raises OnednnError."""
        stream = stream or self._library.stream()
        status = self._execute(self._primitive.handle, stream, len(self._memories), self._arguments)
        if status:
            self._library.refuse(f"to run a {self._primitive.name}", status)


def aligned(count: int) -> npt.NDArray[np.uint8]:
    """So many bytes, which begin at a multiple of `ALIGNMENT`."""
    memory = np.empty(count + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + count]
