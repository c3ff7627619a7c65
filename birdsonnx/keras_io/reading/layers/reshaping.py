"""Layers that move values: shapes, order of axes, margins, repetition."""

import math
from typing import Any

import numpy as np

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.step import Kind, Step


def _flatten(step: Step) -> Tensor:
    return step.canvas.reshape(step.x, (math.prod(step.x.shape),))


def completed(shape: Any, values: int) -> tuple[int, ...]:
    """A shape behind the batch, with its one -1 worked out."""
    fits = isinstance(shape, list | tuple) and all(type(side) is int and side >= -1 for side in shape)
    if not fits or sum(side == -1 for side in shape) > 1:
        raise Refusal(f"{shape!r} is no shape to give to a tensor")
    known = math.prod(side for side in shape if side != -1)
    if known < 1 or values % known or (-1 not in shape and known != values):
        raise Refusal(f"{values} values per photo do not fit the shape {list(shape)}")
    return tuple(values // known if side == -1 else side for side in shape)


def _reshape(step: Step) -> Tensor:
    shape = completed(step.options.raw("target_shape"), math.prod(step.x.shape))
    return step.canvas.reshape(step.x, shape)


def _permute(step: Step) -> Tensor:
    dims = step.options.raw("dims")
    order = [0, *dims] if isinstance(dims, list | tuple) else []
    if sorted(map(str, order)) != sorted(map(str, range(step.x.rank))):
        raise step.options.wrong("dims", f"an order of the axes 1 to {step.x.rank - 1}")
    return step.canvas.transpose(step.x, order)


def _repeat_vector(step: Step) -> Tensor:
    x, count = step.x, step.options.integer("n")
    if x.rank != 2:
        raise Refusal("it must be called on a vector per photo")
    row = step.canvas.reshape(x, (1, *x.shape))
    return step.canvas.binary("Mul", row, np.ones((count, 1), np.float32))


def _margins(step: Step, key: str, dims: int, default: Any) -> list[tuple[int, int]]:
    """A number, a number per side, or two per side: how much before and behind."""
    value = step.options.raw(key, default)
    values = [value] * dims if type(value) is int else value
    if dims == 1 and isinstance(values, list | tuple) and len(values) == 2:
        values = [values]
    pairs = (
        [[each, each] if type(each) is int else each for each in values]
        if isinstance(values, list | tuple)
        else []
    )
    whole = all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    if (
        len(pairs) != dims
        or not whole
        or not all(type(side) is int and side >= 0 for pair in pairs for side in pair)
    ):
        raise step.options.wrong(key, f"how much before and behind each of {dims} side(s)")
    return [(pair[0], pair[1]) for pair in pairs]


def _zero_padding(dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x = step.maps(dims + 2)
        before, behind = zip(*_margins(step, "padding", dims, 1), strict=True)
        return step.canvas.pad(x, (*before, 0), (*behind, 0))

    return Kind(draw)


def _cropping(dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x = step.maps(dims + 2)
        for axis, (before, behind) in enumerate(_margins(step, "cropping", dims, 1 if dims != 2 else 0), 1):
            side = x.shape[axis - 1]
            if before + behind >= side:
                raise Refusal(f"it cuts {before + behind} off a side of {side}")
            x = step.canvas.slice(x, axis, before, side - behind)
        return x

    return Kind(draw)


def _rescaling(step: Step) -> Tensor:
    x = step.x
    for operation, key, default, nothing in (("Mul", "scale", None, 1), ("Add", "offset", 0.0, 0)):
        value = step.options.raw(key, *([] if default is None else [default]))
        numbers = np.asarray(value).reshape(-1).tolist() if isinstance(value, list | tuple) else [value]
        if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
            raise step.options.wrong(key, "a number, or one per channel")
        if any(each != nothing for each in numbers):
            x = step.canvas.binary(operation, x, np.asarray(value, np.float32))
    return x


LAYERS: dict[str, Kind] = {
    "Flatten": Kind(_flatten),
    "Reshape": Kind(_reshape),
    "Permute": Kind(_permute),
    "RepeatVector": Kind(_repeat_vector),
    "Rescaling": Kind(_rescaling),
    **{f"ZeroPadding{dims}D": _zero_padding(dims) for dims in (1, 2, 3)},
    **{f"Cropping{dims}D": _cropping(dims) for dims in (1, 2, 3)},
}
