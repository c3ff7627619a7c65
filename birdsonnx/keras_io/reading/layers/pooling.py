"""Poolings: windows, and the whole map.

ONNX Runtime fuses a Pad of zeros into a pooling with the attribute `pads`, as if both padded with the same
(`sessions.WRONG_OPTIMIZERS`), and the `.onnx` must be right in any session. So `pads` is left out where it is
zero, and after a Pad of zeros the padding of the pooling is a Pad too.
"""

from collections.abc import Sequence

import numpy as np

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.layers.convolutions import padding_of, windows
from birdsonnx.keras_io.reading.step import Kind, Step
from birdsonnx.model.graph import Array


def _windowed(operation: str, dims: int) -> Kind:
    """Padding counts for neither: a maximum has minus infinity there, an average leaves it out."""

    def draw(step: Step) -> Tensor:
        x, options = step.maps(dims + 2), step.options
        size = options.integers("pool_size", dims, 2)
        strides = size if options.raw("strides", None) is None else options.integers("strides", dims)
        padding = options.choice("padding", ("valid", "same"), "valid")
        before, behind = padding_of(padding, x.shape[:-1], size, strides, (1,) * dims)
        pads = [first + last for first, last in zip(before, behind, strict=True)]
        out = windows(x.shape[:-1], size, strides, (1,) * dims, pads)
        shape, window = (*out, x.shape[-1]), {"kernel_shape": size, "strides": strides}
        if not any(pads):
            return Tensor(step.canvas.node(operation, x.name, **window), shape, maps=True)
        if x.name not in step.canvas.zero_margins:
            name = step.canvas.node(operation, x.name, **window, pads=[*before, *behind])
            return Tensor(name, shape, maps=True)
        least = float(np.finfo(np.float32).min) if operation == "MaxPool" else 0.0
        wider = step.canvas.pad(x, (*before, 0), (*behind, 0), least)
        pooled = Tensor(step.canvas.node(operation, wider.name, **window), shape, maps=True)
        if operation == "MaxPool":
            return pooled
        return step.canvas.binary("Mul", pooled, _share(x.shape[:-1], size, strides, before, out))

    return Kind(draw)


def _share(
    sides: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    before: Sequence[int],
    out: Sequence[int],
) -> Array:
    """Places of a window, over those of them that lie in the map: float64 `[*out, 1]`."""
    share: Array = np.ones(())
    for side, k, stride, pad, count in zip(sides, size, strides, before, out, strict=True):
        first = np.arange(count) * stride - pad
        inside = np.minimum(first + k, side) - np.maximum(first, 0)
        share = share[..., None] * (k / inside)
    return share[..., None]


def _whole(average: bool, dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x, canvas = step.x, step.canvas
        keep = step.options.flag("keepdims", False)
        if x.maps and x.rank == dims + 2:
            name = canvas.node("GlobalAveragePool" if average else "GlobalMaxPool", x.name)
            pooled = Tensor(name, (*[1] * dims, x.shape[-1]), maps=True)
        else:
            axes = range(1, dims + 1)
            pooled = canvas.reduce("ReduceMean" if average else "ReduceMax", x, axes)
        return pooled if keep else canvas.reshape(pooled, x.shape[-1:])

    return Kind(draw)


LAYERS: dict[str, Kind] = {}
for _dims in (1, 2, 3):
    for _names, _kind in (
        (("MaxPooling", "MaxPool"), _windowed("MaxPool", _dims)),
        (("AveragePooling", "AvgPool"), _windowed("AveragePool", _dims)),
        (("GlobalAveragePooling", "GlobalAvgPool"), _whole(True, _dims)),
        (("GlobalMaxPooling", "GlobalMaxPool"), _whole(False, _dims)),
    ):
        LAYERS |= {f"{_name}{_dims}D": _kind for _name in _names}
