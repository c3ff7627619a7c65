"""The shared library oneDNN 3.x, loaded by ctypes: its C interface stays the same through all versions 3."""

import ctypes
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable
from ctypes import c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from birdsonnx.extras import how_to_install

VARIABLE = "BIRDSONNX_ONEDNN"
"""Environment variable: the path of a `libdnnl.so.3` to take instead of the one that is found."""
NAME = "libdnnl.so.3"

SEQUENTIAL, OPENMP = 1, 2
"""Values of `dnnl_cpu_runtime`. Others take threads from a pool that is not to be held to one thread."""
CPU, IN_ORDER = 1, 1

Handle = c_void_p
Out = ctypes.POINTER(c_void_p)
Sizes = ctypes.POINTER(c_int64)

FUNCTIONS: dict[str, list[Any]] = {
    "dnnl_engine_create": [Out, c_int, c_size_t],
    "dnnl_stream_create": [Out, Handle, c_uint],
    "dnnl_memory_desc_create_with_strides": [Out, c_int, Sizes, c_int, Sizes],
    "dnnl_memory_desc_create_with_tag": [Out, c_int, Sizes, c_int, c_int],
    "dnnl_memory_desc_create_submemory": [Out, Handle, Sizes, Sizes],
    "dnnl_memory_desc_clone": [Out, Handle],
    "dnnl_memory_desc_destroy": [Handle],
    "dnnl_memory_create": [Out, Handle, Handle, c_void_p],
    "dnnl_memory_destroy": [Handle],
    "dnnl_memory_set_data_handle": [Handle, c_void_p],
    "dnnl_primitive_attr_create": [Out],
    "dnnl_primitive_attr_destroy": [Handle],
    "dnnl_primitive_attr_set_scratchpad_mode": [Handle, c_int],
    "dnnl_primitive_attr_set_post_ops": [Handle, Handle],
    "dnnl_post_ops_create": [Out],
    "dnnl_post_ops_destroy": [Handle],
    "dnnl_post_ops_append_eltwise": [Handle, c_int, c_float, c_float],
    "dnnl_post_ops_append_sum": [Handle, c_float, ctypes.c_int32, c_int],
    "dnnl_post_ops_append_binary": [Handle, c_int, Handle],
    "dnnl_convolution_forward_primitive_desc_create": [
        Out, Handle, c_int, c_int, *[Handle] * 4, *[Sizes] * 4, Handle,
    ],
    "dnnl_convolution_backward_data_primitive_desc_create": [
        Out, Handle, c_int, *[Handle] * 3, *[Sizes] * 4, Handle, Handle,
    ],
    "dnnl_convolution_backward_weights_primitive_desc_create": [
        Out, Handle, c_int, *[Handle] * 4, *[Sizes] * 4, Handle, Handle,
    ],
    "dnnl_pooling_forward_primitive_desc_create": [
        Out, Handle, c_int, c_int, Handle, Handle, *[Sizes] * 5, Handle,
    ],
    "dnnl_pooling_backward_primitive_desc_create": [
        Out, Handle, c_int, Handle, Handle, *[Sizes] * 5, Handle, Handle,
    ],
    "dnnl_eltwise_forward_primitive_desc_create": [
        Out, Handle, c_int, c_int, Handle, Handle, c_float, c_float, Handle,
    ],
    "dnnl_eltwise_backward_primitive_desc_create": [
        Out, Handle, c_int, *[Handle] * 3, c_float, c_float, Handle, Handle,
    ],
    "dnnl_batch_normalization_forward_primitive_desc_create": [
        Out, Handle, c_int, Handle, Handle, c_float, c_uint, Handle,
    ],
    "dnnl_batch_normalization_backward_primitive_desc_create": [
        Out, Handle, c_int, *[Handle] * 3, c_float, c_uint, Handle, Handle,
    ],
    "dnnl_binary_primitive_desc_create": [Out, Handle, c_int, *[Handle] * 4],
    "dnnl_concat_primitive_desc_create": [Out, Handle, Handle, c_int, c_int, Out, Handle],
    "dnnl_reorder_primitive_desc_create": [Out, Handle, Handle, Handle, Handle, Handle],
    "dnnl_primitive_desc_destroy": [Handle],
    "dnnl_primitive_desc_query": [Handle, c_int, c_int, c_void_p],
    "dnnl_primitive_create": [Out, Handle],
    "dnnl_primitive_destroy": [Handle],
    "dnnl_primitive_execute": [Handle, Handle, c_int, c_void_p],
}  # fmt: skip
"""Functions that return a status, with the types of their arguments."""


class OnednnError(Exception):
    """The library cannot be loaded, or cannot do what is asked of it; says why, in a few words."""


class Version(ctypes.Structure):
    """`dnnl_version_t`."""

    _fields_ = (
        ("major", c_int),
        ("minor", c_int),
        ("patch", c_int),
        ("hash", ctypes.c_char_p),
        ("cpu_runtime", c_uint),
        ("gpu_runtime", c_uint),
    )


class Library:
    """The library's functions; `library("dnnl_…", …)` calls one and raises OnednnError where it refuses.

    Args:
        path: of the shared library.

    Raises:
        OnednnError: it is none, or not one that can be used here.
    """

    def __init__(self, path: str) -> None:
        try:
            self._loaded = ctypes.CDLL(path)
            self._loaded.dnnl_version.restype = ctypes.POINTER(Version)
            version: Version = self._loaded.dnnl_version().contents
            self.version = f"{version.major}.{version.minor}.{version.patch}"
            """Such as `3.2.0`."""
            if version.major != 3:
                raise OnednnError(f"{path} is oneDNN {self.version}, and 3.x is needed")
            if version.cpu_runtime not in (SEQUENTIAL, OPENMP):
                raise OnednnError(f"{path} is built for another threading library than OpenMP")
            for name, types in FUNCTIONS.items():
                getattr(self._loaded, name).argtypes = types
            equal, size = self._loaded.dnnl_memory_desc_equal, self._loaded.dnnl_memory_desc_get_size
            query = self._loaded.dnnl_primitive_desc_query_md
            equal.argtypes, size.argtypes, query.argtypes = [Handle] * 2, [Handle], [Handle, c_int, c_int]
            size.restype, query.restype = c_size_t, c_void_p
            self._one_thread = self._setter_of_threads() if version.cpu_runtime == OPENMP else lambda: None
        except (OSError, AttributeError) as error:
            raise OnednnError(f"{path} cannot be loaded ({' '.join(str(error).split())})") from None
        self.path = path
        self.engine = self.made("dnnl_engine_create", CPU, 0)
        self._of_thread = threading.local()
        self.stream()

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._loaded, name)(*arguments)
        if status:
            self.refuse(name, status)

    def refuse(self, what: str, status: int) -> NoReturn:
        raise OnednnError(f"oneDNN {self.version} refuses {what} (status {status})")

    def made(self, name: str, *arguments: Any) -> c_void_p:
        """The object that a function creates, which it hands out through its first argument."""
        handle = c_void_p()
        self(name, ctypes.byref(handle), *arguments)
        return handle

    def function(self, name: str) -> Any:
        """A function itself, for loops that call it often."""
        return getattr(self._loaded, name)

    def stream(self) -> c_void_p:
        """This thread's queue of work. What the thread runs, and the primitives that it makes, use no other
        threads from here on."""
        if not hasattr(self._of_thread, "stream"):
            self._one_thread()
            self._of_thread.stream = self.made("dnnl_stream_create", self.engine, IN_ORDER)
        stream: c_void_p = self._of_thread.stream
        return stream

    def _setter_of_threads(self) -> Callable[[], None]:
        """OpenMP's own function, out of the copy of it that the library uses."""
        function = self._loaded.omp_set_num_threads  # looked up in what the library is linked with, too
        return lambda: function(1)


def sizes(values: Iterable[int]) -> Any:
    """`dnnl_dims_t`, which has twelve places."""
    return (c_int64 * 12)(*values)


def candidates() -> list[str]:
    """Where the library is looked for: a path that the user names, or the environment's own and then the
    system's."""
    named = os.environ.get(VARIABLE)
    if named:
        return [named]
    # Where conda and pip put it: pip of Debian's Python has a place of its own, and one below the home where
    # it may not write there.
    roots = [sys.prefix, sysconfig.get_path("data"), *([site.getuserbase()] if site.ENABLE_USER_SITE else [])]
    found = [Path(root) / "lib" / NAME for root in dict.fromkeys(roots)]
    return [*(str(path) for path in found if path.is_file()), NAME]


@cache
def load() -> Library:
    """The library that is used here.

    Raises:
        OnednnError: there is none.
    """
    if sys.platform != "linux":
        raise OnednnError("oneDNN is used on Linux only")
    refusals = []
    for path in candidates():
        try:
            return Library(path)
        except OnednnError as error:
            refusals.append(error)
    if os.environ.get(VARIABLE):
        raise OnednnError(f"{VARIABLE}: {refusals[0]}")
    if len(refusals) > 1:
        raise refusals[0]
    raise OnednnError(f"oneDNN is not installed ({how_to_install('bf16')})")
