"""Layers that change the size of maps: enlarging, resizing, cutting to a size.

Each side is interpolated by a matrix of our own making, so that all ways of Keras are read alike and there
are gradients. TensorFlow's are those of half-pixel centres.
"""

from collections.abc import Sequence

import numpy as np

from birdsonnx.keras_io.reading.canvas import MAX_VALUES, Tensor
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.step import Kind, Step
from birdsonnx.model.graph import Array

WAYS = ("nearest", "bilinear")


def interpolation(old: int, new: int, way: str, antialias: bool = False) -> Array:
    """float32 `[new, old]`: the share that each old value has in each new one."""
    if old * new > MAX_VALUES:
        raise Refusal(f"it resizes a side of {old} to {new}, which no network can have")
    at, places = (np.arange(new)[:, None] + 0.5) * (old / new), np.arange(old)
    if way == "nearest":
        shares = (places == np.minimum(np.floor(at), old - 1)).astype(np.float64)
    elif antialias:
        shares = np.maximum(1 - np.abs(places + 0.5 - at) / max(old / new, 1.0), 0)
    else:
        shares = np.maximum(1 - np.abs(places - np.clip(at - 0.5, 0, old - 1)), 0)
    matrix: Array = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def resized(step: Step, x: Tensor, sides: Sequence[int], way: str, antialias: bool = False) -> Tensor:
    """Maps with other sides."""
    canvas, x = step.canvas, step.canvas.as_maps(x)
    dims = len(sides)
    for axis, (old, new) in enumerate(zip(x.shape[:-1], sides, strict=True)):
        if old == new:
            continue
        shape = (*x.shape[:axis], new, *x.shape[axis + 1 :])
        probe = Tensor("", shape, maps=True)  # refuses sizes that no network has
        matrix = interpolation(old, new, way, antialias)
        if axis == dims - 1:
            name = canvas.node("MatMul", x.name, matrix.T)
        elif axis == dims - 2:
            name = canvas.node("MatMul", matrix, x.name)
        else:
            raise Refusal("three-dimensional maps are not enlarged along their first side")
        x = Tensor(name, probe.shape, maps=True)
    return x


def _up_sampling(dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x = step.maps(dims + 2)
        factors = step.options.integers("size", dims, 2)
        way = step.options.choice("interpolation", WAYS, "nearest") if dims == 2 else "nearest"
        return resized(step, x, [side * factor for side, factor in zip(x.shape, factors, strict=False)], way)

    return Kind(draw)


def _resizing(step: Step) -> Tensor:
    x, options = step.maps(4), step.options
    sides = options.integer("height"), options.integer("width")
    way = options.choice("interpolation", WAYS, "bilinear")
    options.only("pad_to_aspect_ratio", False)
    options.idle("fill_mode", "fill_value")
    antialias = options.flag("antialias", False)
    if options.flag("crop_to_aspect_ratio", False):
        x = _cut_to_aspect(step, x, sides)
    return resized(step, x, sides, way, antialias and way != "nearest")


def _cut_to_aspect(step: Step, x: Tensor, sides: tuple[int, int]) -> Tensor:
    """The largest part in the middle that has the aspect of `sides`."""
    height, width = x.shape[:2]
    wanted = [int(width * sides[0] / sides[1]), int(height * sides[1] / sides[0])]
    return _middle(
        step, x, [max(min(side, want), 1) for side, want in zip((height, width), wanted, strict=True)]
    )


def _middle(step: Step, x: Tensor, sides: Sequence[int]) -> Tensor:
    for axis, side in enumerate(sides, 1):
        start = (x.shape[axis - 1] - side) // 2
        x = step.canvas.slice(x, axis, start, start + side)
    return x


def _center_crop(step: Step) -> Tensor:
    """The middle; a map that is smaller than that is cut to the aspect and enlarged."""
    x = step.maps(4)
    sides = step.options.integer("height"), step.options.integer("width")
    if x.shape[0] >= sides[0] and x.shape[1] >= sides[1]:
        return _middle(step, x, sides)
    return resized(step, _cut_to_aspect(step, x, sides), sides, "bilinear")


def _random_crop(step: Step) -> Tensor:
    """At random in training. In prediction Keras 2 cuts the middle to the aspect and resizes it; Keras 3
    leaves the photo as it is."""
    x = step.maps(4)
    sides = step.options.integer("height"), step.options.integer("width")
    if x.shape[:2] == sides or step.layer.generation == 3:
        return x
    return resized(step, _cut_to_aspect(step, x, sides), sides, "bilinear")


LAYERS: dict[str, Kind] = {
    "UpSampling1D": _up_sampling(1),
    "UpSampling2D": _up_sampling(2),
    "Resizing": Kind(_resizing),
    "CenterCrop": Kind(_center_crop),
    "RandomCrop": Kind(_random_crop, acts_in_training_only=True),
}
