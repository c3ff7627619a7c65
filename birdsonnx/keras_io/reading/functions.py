"""Functions of TensorFlow and Keras: each from a step and its arguments to the tensor that comes out."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.layers import activations
from birdsonnx.keras_io.reading.layers.merging import concatenated, unit_length
from birdsonnx.keras_io.reading.layers.reshaping import completed
from birdsonnx.keras_io.reading.layers.resizing import WAYS, resized
from birdsonnx.keras_io.reading.options import FLOATS, Options, Refusal
from birdsonnx.keras_io.reading.step import Step

# --- Arithmetic -----------------------------------------------------------------------------------------


def binary(operation: str) -> Callable[..., Tensor]:
    def function(step: Step, x: Any, y: Any) -> Tensor:
        return step.canvas.binary(operation, _operand(x), _operand(y))

    return function


def _operand(value: Any) -> Any:
    """A tensor, or a constant as an array."""
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise Refusal(f"{str(value)[:60]!r} is no number") from None
    return array


def unary(operation: str) -> Callable[..., Tensor]:
    def function(step: Step, x: Tensor) -> Tensor:
        return step.canvas.on(operation, _tensor(x))

    return function


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise Refusal("its argument must be a tensor of the network")
    return value


def square(step: Step, x: Tensor) -> Tensor:
    return step.canvas.on("Mul", _tensor(x), x.name)


def rsqrt(step: Step, x: Tensor) -> Tensor:
    return step.canvas.on("Reciprocal", step.canvas.on("Sqrt", _tensor(x)))


def clip(step: Step, x: Tensor, x_min: Any, x_max: Any) -> Tensor:
    return activations.clip(step.canvas, _tensor(x), float(x_min), float(x_max))


def matmul(step: Step, x: Any, y: Any, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    x, y = (step.canvas.as_keras(_tensor(each)) for each in (x, y))
    if x.rank != y.rank or x.rank < 3:
        raise Refusal("matrices are multiplied where both have three or more axes with that of the photos")
    swap = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    x = step.canvas.transpose(x, swap) if transpose_a else x
    y = step.canvas.transpose(y, swap) if transpose_b else y
    if x.shape[-1] != y.shape[-2] or x.shape[:-2] != y.shape[:-2]:
        raise Refusal(f"{list(x.shape)} and {list(y.shape)} cannot be multiplied")
    return Tensor(step.canvas.node("MatMul", x.name, y.name), (*x.shape[:-1], y.shape[-1]))


# --- Activations ----------------------------------------------------------------------------------------


def activation(name: str) -> Callable[..., Tensor]:
    def function(step: Step, x: Tensor) -> Tensor:
        return activations.by_value(step, _tensor(x), name)

    return function


def softmax(operation: str) -> Callable[..., Tensor]:
    def function(step: Step, x: Tensor, axis: Any = -1) -> Tensor:
        axes = _axes(_tensor(x), -1 if axis is None else axis)
        return activations.softmax(step.canvas, x, axes, operation)

    return function


def gelu(default: bool) -> Callable[..., Tensor]:
    def function(step: Step, x: Tensor, approximate: bool = default) -> Tensor:
        return activations.gelu(step.canvas, _tensor(x), bool(approximate))

    return function


def leaky_relu(step: Step, x: Tensor, alpha: float = 0.2) -> Tensor:
    return activations.leaky_relu(step.canvas, _tensor(x), float(alpha))


def elu(step: Step, x: Tensor, alpha: float = 1.0) -> Tensor:
    return step.canvas.on("Elu", _tensor(x), alpha=float(alpha))


def silu(step: Step, x: Tensor, beta: float = 1.0) -> Tensor:
    if beta != 1:
        raise Refusal(f"beta {beta} is not read; what is: 1")
    return activations.silu(step.canvas, _tensor(x))


# --- Reductions and shapes ------------------------------------------------------------------------------


def _axes(x: Tensor, axis: Any) -> list[int]:
    """One axis or several, counted with that of the photos."""
    return list(Options({"axis": axis}).axes("axis", x.rank))


def reduction(operation: str) -> Callable[..., Tensor]:
    def function(step: Step, x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        if axis is None:
            raise Refusal("it reduces over the photos of a batch")
        return step.canvas.reduce(operation, _tensor(x), _axes(x, axis), bool(keepdims))

    return function


def reshape(step: Step, x: Tensor, shape: Any) -> Tensor:
    """To a shape that begins with the batch, as -1 or as the number that the input has."""
    x = _tensor(x)
    if not isinstance(shape, list | tuple) or len(shape) < 2 or not all(type(side) is int for side in shape):
        raise Refusal(
            f"it reshapes to {str(shape)[:60]}; numbers that begin with -1 for the batch can be read"
        )
    rest = list(shape[1:])
    if shape[0] != -1 and -1 not in rest and math.prod(rest) != math.prod(x.shape):
        raise Refusal(f"it reshapes to {list(shape)}, which mixes the photos of a batch")
    return step.canvas.reshape(x, completed(rest, math.prod(x.shape)))


def _flatten(step: Step, x: Tensor) -> Tensor:
    return step.canvas.reshape(_tensor(x), (math.prod(x.shape),))


def transpose(step: Step, x: Tensor, axes: Any = None) -> Tensor:
    order = axes if isinstance(axes, list | tuple) else []
    if not all(type(axis) is int and -len(order) <= axis < len(order) for axis in order):
        raise Refusal("its axes must be whole numbers")
    return step.canvas.transpose(_tensor(x), [axis % len(order) for axis in order])


def expand_dims(step: Step, x: Tensor, axis: Any) -> Tensor:
    rank = _tensor(x).rank + 1
    if type(axis) is not int or not -rank <= axis < rank or axis % rank == 0:
        raise Refusal("its axis must be one behind that of the photos")
    at = axis % rank - 1
    return step.canvas.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def squeeze(step: Step, x: Tensor, axis: Any = None) -> Tensor:
    axes = (
        [at for at, side in enumerate(_tensor(x).shape, 1) if side == 1] if axis is None else _axes(x, axis)
    )
    if any(x.shape[at - 1] != 1 for at in axes):
        raise Refusal(f"the axes {axes} of {list(x.shape)} are not all 1")
    return step.canvas.reshape(x, [side for at, side in enumerate(x.shape, 1) if at not in axes])


def flip(step: Step, x: Tensor, axis: Any) -> Tensor:
    for each in _axes(_tensor(x), axis):
        x = step.canvas.slice(x, each, x.shape[each - 1] - 1, -1, -1)
    return x


def concat(step: Step, x: Any, axis: Any = -1) -> Tensor:
    if not isinstance(x, list) or not x or type(axis) is not int:
        raise Refusal("it joins a list of tensors along one axis")
    return concatenated(step, [_tensor(each) for each in x], axis)


def stack(step: Step, x: Any, axis: Any = 0) -> Tensor:
    if not isinstance(x, list) or not x or type(axis) is not int:
        raise Refusal("it stacks a list of tensors along one axis")
    return concatenated(step, [expand_dims(step, _tensor(each), axis) for each in x], axis)


def split(
    step: Step, x: Tensor, num_or_size_splits: Any = None, axis: Any = 0, **others: Any
) -> list[Tensor]:
    parts = others.pop("indices_or_sections", num_or_size_splits)
    if others:
        raise Refusal(f"its argument {min(others)!r} is not known")
    [at] = _axes(_tensor(x), axis)
    side = x.shape[at - 1]
    if type(parts) is not int or parts < 1 or side % parts:
        raise Refusal(f"it splits {side} into {str(parts)[:40]}; a number of equal parts can be read")
    size = side // parts
    return [step.canvas.slice(x, at, start, start + size) for start in range(0, side, size)]


def get_item(step: Step, x: Tensor, key: Any) -> Tensor:
    """Slices as Python has them; an integer takes one and drops the axis, None adds one."""
    x, key = _tensor(x), key if isinstance(key, list) else [key]
    if key.count(Ellipsis) > 1:
        raise Refusal("it has two ellipses")
    named = sum(each is not None and each is not Ellipsis for each in key)
    if Ellipsis not in key:
        key = [*key, Ellipsis]
    at = key.index(Ellipsis)
    key = [*key[:at], *[slice(None)] * (x.rank - named), *key[at + 1 :]]
    if len([each for each in key if each is not None]) != x.rank:
        raise Refusal("it has more slices than the tensor has axes")
    axis, shape = 0, []
    for each in key:
        if each is None:
            shape.append(1)
            continue
        if isinstance(each, slice):
            x = _sliced(step, x, axis, each)
            shape.append(0 if axis == 0 else x.shape[axis - 1])
        elif type(each) is int and axis and -x.shape[axis - 1] <= each < x.shape[axis - 1]:
            start = each % x.shape[axis - 1]
            x = step.canvas.slice(x, axis, start, start + 1)
        else:
            raise Refusal(f"its index {str(each)[:40]} is not read")
        axis += 1
    if shape[:1] != [0]:
        raise Refusal("it takes a part of the photos of a batch")
    return step.canvas.reshape(x, shape[1:])


def _sliced(step: Step, x: Tensor, axis: int, part: slice) -> Tensor:
    bounds = (part.start, part.stop, part.step)
    if not all(bound is None or type(bound) is int for bound in bounds) or part.step == 0:
        raise Refusal(f"its slice {str(part)[:60]} is not read")
    if axis == 0:
        if bounds not in ((None, None, None), (None, None, 1), (0, None, None)):
            raise Refusal("it takes a part of the photos of a batch")
        return x
    return step.canvas.slice(x, axis, *part.indices(x.shape[axis - 1]))


def cast(step: Step, x: Tensor, dtype: Any) -> Tensor:
    """All is computed in float32, so that a cast to another floating-point type does nothing."""
    del step
    if str(dtype).rpartition(".")[2] not in FLOATS:
        raise Refusal(f"it casts to {str(dtype)[:40]}; floating-point numbers can be read")
    return _tensor(x)


def identity(step: Step, x: Tensor) -> Tensor:
    del step
    return _tensor(x)


def l2_normalized(step: Step, x: Tensor, axis: Any = None, epsilon: float = 1e-12) -> Tensor:
    if epsilon != 1e-12:
        raise Refusal(f"epsilon {epsilon} is not read; what is: 1e-12")
    return unit_length(step, _tensor(x), _axes(x, axis))


def resize(
    step: Step,
    x: Tensor,
    size: Any,
    interpolation: Any = "bilinear",
    antialias: bool = False,
    preserve_aspect_ratio: bool = False,
) -> Tensor:
    whole = isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size)
    if not whole or interpolation not in WAYS or preserve_aspect_ratio or _tensor(x).rank != 4:
        raise Refusal("it resizes in another way than bilinear or nearest to a height and width")
    return resized(step, x, size, interpolation, bool(antialias) and interpolation != "nearest")
