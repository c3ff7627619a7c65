"""oneDNN's primitives: one operation each, for tensors of given shapes, compiled for this processor.

The library's programming guide says what each computes. Every primitive here takes its scratch memory from
the caller, so that threads may share it.
"""

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_void_p
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from birdsonnx.onednn.descriptors import BF16, UNDEFINED, Descriptor, copied, of_any_format
from birdsonnx.onednn.library import Library, OnednnError, sizes

FORWARD, BACKWARD = 64, 128
"""`dnnl_prop_kind_t`."""
DIRECT = 1
MAX, AVERAGE_OF_ALL, AVERAGE_OF_REAL = 0x1FF, 0x2FF, 0x3FF
"""Pooling; an average counts padding, or does not."""
ADD, MULTIPLY = 0x1FFF0, 0x1FFF1
AFFINE = 1 | 2 | 4
"""Flags of a normalization: statistics are given, and there are factors and summands."""
USER_SCRATCHPAD = 1

SOURCE, SECOND, RESULT, WEIGHTS, BIAS = 1, 2, 17, 33, 41
MEAN, VARIANCE, BY, PLUS, WORKSPACE, SCRATCHPAD = 49, 50, 51, 52, 64, 80
D_SOURCE, D_RESULT, D_WEIGHTS, D_BIAS, D_BY, D_PLUS = 129, 145, 161, 169, 255, 256
MANY = 1024
POST_OPERATION = 32768
"""`DNNL_ARG_…`: the places of a primitive's tensors."""

_SOURCE, _D_SOURCE, _WEIGHTS, _D_WEIGHTS, _RESULT, _, _WORKSPACE, _SCRATCHPAD = range(129, 137)
"""`dnnl_query_…_md`."""
_IMPLEMENTATION = 8

SLOW = "ref"
"""What the names of implementations begin with that are there for completeness' sake."""


@dataclass(frozen=True)
class Function:
    """An elementwise function, `alpha` and `beta` its parameters. `backward` is the same one, for its
    gradient, which is computed from its result where `by_result`, else from its argument."""

    forward: int
    backward: int
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def by_result(self) -> bool:
        return self.backward >= 0x100


class Window(NamedTuple):
    """What slides over a map: two numbers each, of rows and of columns."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    gaps: tuple[int, int] = (0, 0)
    """Between values that are looked at: dilation less one."""
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    """Padding."""

    @property
    def of_convolution(self) -> tuple[Any, ...]:
        """As a convolution takes it, whose weights say how large the kernel is."""
        return sizes(self.strides), sizes(self.gaps), sizes(self.before), sizes(self.after)

    @property
    def of_pool(self) -> tuple[Any, ...]:
        """As a pool takes it."""
        strides, *others = self.of_convolution
        return strides, sizes(self.kernel), *others


class Attributes:
    """What a primitive does beside its operation, in the order of the calls."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.handle = library.made("dnnl_primitive_attr_create")
        self._then = library.made("dnnl_post_ops_create")
        library("dnnl_primitive_attr_set_scratchpad_mode", self.handle, USER_SCRATCHPAD)
        weakref.finalize(self, library.function("dnnl_primitive_attr_destroy"), self.handle)
        weakref.finalize(self, library.function("dnnl_post_ops_destroy"), self._then)

    def then_add_to_result(self, kind: int) -> "Attributes":
        """Add what lies where the result goes."""
        return self._append("sum", 1.0, 0, kind)

    def then_add(self, second: Descriptor) -> "Attributes":
        """Add another tensor."""
        return self._append("binary", ADD, second.handle)

    def then(self, function: Function) -> "Attributes":
        return self._append("eltwise", function.forward, function.alpha, function.beta)

    def _append(self, what: str, *arguments: Any) -> "Attributes":
        self._library(f"dnnl_post_ops_append_{what}", self._then, *arguments)
        self._library("dnnl_primitive_attr_set_post_ops", self.handle, self._then)
        return self


class Primitive:
    """A compiled operation, with the formats that its kernel chose.

    Raises:
        OnednnError: there is no kernel for it.
    """

    def __init__(self, library: Library, name: str, *arguments: Any) -> None:
        self.library = library
        plain = [_handle_of(argument) for argument in arguments]
        self.description = library.made(f"dnnl_{name}_primitive_desc_create", *plain)
        weakref.finalize(self, library.function("dnnl_primitive_desc_destroy"), self.description)
        self.handle = library.made("dnnl_primitive_create", self.description)
        weakref.finalize(self, library.function("dnnl_primitive_destroy"), self.handle)
        self.name = name

    @property
    def implementation(self) -> str:
        """Such as `brgconv:avx512_core_bf16`."""
        text = c_char_p()
        query = self.library.function("dnnl_primitive_desc_query")
        status = query(self.description, _IMPLEMENTATION, 0, ctypes.cast(byref(text), c_void_p))
        return "" if status or text.value is None else text.value.decode()

    @property
    def scratchpad(self) -> Descriptor:
        return self._queried(_SCRATCHPAD, (), BF16)

    @property
    def workspace(self) -> Descriptor:
        return self._queried(_WORKSPACE, (), BF16)

    def weights(self, like: Descriptor) -> Descriptor:
        return self._queried(_WEIGHTS, like.shape, like.kind)

    def weight_gradient(self, like: Descriptor) -> Descriptor:
        return self._queried(_D_WEIGHTS, like.shape, like.kind)

    def _queried(self, what: int, shape: Sequence[int], kind: int) -> Descriptor:
        handle = self.library.function("dnnl_primitive_desc_query_md")(self.description, what, 0)
        return copied(self.library, handle, shape, kind)


def _handle_of(argument: Any) -> Any:
    match argument:
        case Descriptor() | Attributes():
            return argument.handle
        case Primitive():
            return argument.description
    return argument


def convolution(
    library: Library,
    source: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    result: Descriptor,
    window: Window,
    attributes: Attributes,
) -> Primitive:
    """`result = weights * source + bias`, and what the attributes add."""
    return Primitive(
        library, "convolution_forward", library.engine, FORWARD, DIRECT, source, weights,
        bias, result, *window.of_convolution, attributes,
    )  # fmt: skip


def convolution_data(
    library: Library, source: Descriptor, weights: Descriptor, result: Descriptor, window: Window
) -> Primitive:
    """The gradient of a convolution by what it reads."""
    hint = convolution(library, source, weights, None, result, window, Attributes(library))
    return Primitive(
        library, "convolution_backward_data", library.engine, DIRECT, source, weights,
        result, *window.of_convolution, hint, Attributes(library),
    )  # fmt: skip


def convolution_weights(
    library: Library,
    source: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    result: Descriptor,
    window: Window,
) -> Primitive:
    """The gradient of a convolution by its weights and bias. `weights` are float32 as the bias is: the
    gradient is not rounded."""
    rounded = of_any_format(library, weights.shape, source.kind)
    hint = convolution(library, source, rounded, bias, result, window, Attributes(library))
    return Primitive(
        library, "convolution_backward_weights", library.engine, DIRECT, source, weights,
        bias, result, *window.of_convolution, hint, Attributes(library),
    )  # fmt: skip


def pooling(
    library: Library, algorithm: int, source: Descriptor, result: Descriptor, window: Window
) -> Primitive:
    return Primitive(
        library, "pooling_forward", library.engine, FORWARD, algorithm, source, result, *window.of_pool,
        Attributes(library),
    )  # fmt: skip


def pooling_backward(
    library: Library,
    algorithm: int,
    source: Descriptor,
    result: Descriptor,
    window: Window,
    forward: Primitive,
) -> Primitive:
    return Primitive(
        library, "pooling_backward", library.engine, algorithm, source, result, *window.of_pool, forward,
        Attributes(library),
    )  # fmt: skip


def elementwise(library: Library, function: Function, data: Descriptor) -> Primitive:
    return Primitive(
        library, "eltwise_forward", library.engine, FORWARD, function.forward, data, data,
        function.alpha, function.beta, Attributes(library),
    )  # fmt: skip


def elementwise_backward(library: Library, function: Function, data: Descriptor) -> Primitive:
    hint = elementwise(library, replace(function, forward=function.backward), data)
    return Primitive(
        library, "eltwise_backward", library.engine, function.backward, data, data, data,
        function.alpha, function.beta, hint, Attributes(library),
    )  # fmt: skip


def normalization(library: Library, data: Descriptor) -> Primitive:
    """`(x - mean) / sqrt(variance) * by + plus` per channel, with statistics that are given."""
    return Primitive(
        library, "batch_normalization_forward", library.engine, FORWARD, data, data, 0.0, AFFINE,
        Attributes(library),
    )  # fmt: skip


def normalization_backward(library: Library, data: Descriptor, forward: Primitive) -> Primitive:
    return Primitive(
        library, "batch_normalization_backward", library.engine, BACKWARD, data, data, data,
        0.0, AFFINE, forward, Attributes(library),
    )  # fmt: skip


def binary(
    library: Library, algorithm: int, first: Descriptor, second: Descriptor, result: Descriptor
) -> Primitive:
    """`first + second` or their product; an axis of 1 of the second is spread."""
    return Primitive(
        library, "binary", library.engine, algorithm, first, second, result,
        Attributes(library),
    )  # fmt: skip


def concatenation(library: Library, sources: Sequence[Descriptor], result: Descriptor) -> Primitive:
    """Channels after channels."""
    handles = (c_void_p * len(sources))(*(source.handle for source in sources))
    return Primitive(
        library, "concat", library.engine, result, len(sources), 1,
        ctypes.cast(handles, POINTER(c_void_p)), Attributes(library),
    )  # fmt: skip


def reorder(library: Library, source: Descriptor, result: Descriptor, adds: bool = False) -> Primitive:
    """The same values in another type and format; with `adds` they are added to what is there."""
    attributes = Attributes(library)
    if adds:
        attributes.then_add_to_result(UNDEFINED)  # a reorder takes no type of the sum beside its own
    return Primitive(library, "reorder", source, library.engine, result, library.engine, attributes)


def require_fast(primitive: Primitive) -> None:
    """Raises OnednnError where a kernel is the slow one that exists for completeness' sake."""
    if primitive.implementation.startswith(SLOW):
        raise OnednnError(f"oneDNN {primitive.library.version} has no fast {primitive.name} here")
