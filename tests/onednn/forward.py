"""ONNX nodes in float64, from the standard's definitions: for each window its own small sum, and nothing of
birdsonnx."""

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

Arrays = Mapping[str, np.ndarray]


def outputs(model: ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """Every value of a graph."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values |= feeds
    for node in model.graph.node:
        options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        given = [values[name] if name else None for name in node.input]
        values[node.output[0]] = NODES[node.op_type](options, *given)
    return values


def _windows(
    source: np.ndarray, kernel: tuple[int, int], options: dict[str, Any], fill: float
) -> tuple[np.ndarray, np.ndarray]:
    """What each window sees, `[batch, channels, out height, out width, height, width]`, and where it is not
    padding."""
    strides, dilations = options.get("strides", [1, 1]), options.get("dilations", [1, 1])
    top, left, bottom, right = options.get("pads", [0] * 4)
    rounded = math.ceil if options.get("ceil_mode", 0) else math.floor
    reach = [(side - 1) * step + 1 for side, step in zip(kernel, dilations, strict=True)]
    sides = [source.shape[2] + top + bottom, source.shape[3] + left + right]
    size = [
        rounded((side - whole) / stride) + 1
        for side, whole, stride in zip(sides, reach, strides, strict=True)
    ]
    seen = np.full((*source.shape[:2], *size, *kernel), fill)
    real = np.zeros((*size, *kernel))
    for row, column, down, across in product(*map(range, (*size, *kernel))):
        y = row * strides[0] + down * dilations[0] - top
        x = column * strides[1] + across * dilations[1] - left
        if 0 <= y < source.shape[2] and 0 <= x < source.shape[3]:
            seen[:, :, row, column, down, across] = source[:, :, y, x]
            real[row, column, down, across] = 1
    return seen, real


def _conv(
    options: dict[str, Any], source: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    groups = options.get("group", 1)
    out, each = len(kernel) // groups, kernel.shape[1]
    parts = []
    for group in range(groups):
        part = source[:, group * each : (group + 1) * each]
        seen, _ = _windows(part, kernel.shape[2:], options, 0.0)
        weights = kernel[group * out : (group + 1) * out]
        parts.append(np.tensordot(seen, weights, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2))
    result = np.concatenate(parts, 1)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


def _max_pool(options: dict[str, Any], source: np.ndarray) -> np.ndarray:
    return _windows(source, tuple(options["kernel_shape"]), options, -np.inf)[0].max((4, 5))


def _average_pool(options: dict[str, Any], source: np.ndarray) -> np.ndarray:
    seen, real = _windows(source, tuple(options["kernel_shape"]), options, 0.0)
    count = math.prod(options["kernel_shape"]) if options.get("count_include_pad", 0) else real.sum((2, 3))
    return seen.sum((4, 5)) / count


def _slice(
    _: object, source: np.ndarray, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    parts = [slice(None)] * source.ndim
    for axis, *part in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(*part)
    return source[tuple(parts)]


def _pad(_: object, source: np.ndarray, pads: np.ndarray) -> np.ndarray:
    return np.pad(source, list(zip(pads[:4], pads[4:], strict=True)))


def _of(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda _, *values: function(*values)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


NODES: dict[str, Callable[..., np.ndarray]] = {
    "Add": _of(np.add),
    "AveragePool": _average_pool,
    "Clip": _of(np.clip),
    "Concat": lambda options, *values: np.concatenate(values, options["axis"]),
    "Conv": _conv,
    "Elu": lambda options, x: np.where(x > 0, x, options.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "GlobalAveragePool": _of(lambda x: x.mean((2, 3), keepdims=True)),
    "HardSigmoid": lambda options, x: np.clip(options.get("alpha", 0.2) * x + options.get("beta", 0.5), 0, 1),
    "HardSwish": _of(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": lambda options, x: np.where(x > 0, x, options.get("alpha", 0.01) * x),
    "MaxPool": _max_pool,
    "Mul": _of(np.multiply),
    "Pad": _pad,
    "Relu": _of(lambda x: np.maximum(x, 0)),
    "Sigmoid": _of(_sigmoid),
    "Slice": _slice,
    "Tanh": _of(np.tanh),
}
