"""Normalizations: by stored statistics, by those of each photo, and to unit length."""

import math
from collections.abc import Sequence

import numpy as np

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.layers.merging import unit_length
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.records import Variable
from birdsonnx.keras_io.reading.step import Config, Kind, Step
from birdsonnx.model.graph import Array

NORMALIZATION_EPSILON = 1e-7
"""Keras' backend.epsilon(), the least deviation that its Normalization divides by."""


def _scale_and_center(config: Config) -> tuple[Variable, ...]:
    wanted = (("gamma", "scale"), ("beta", "center"))
    return tuple(Variable(role) for role, key in wanted if config.get(key, True) is not False)


# --- By stored statistics -------------------------------------------------------------------------------


def _batch_norm_holds(config: Config) -> tuple[Variable, ...]:
    statistics = (Variable("moving_mean", trainable=False), Variable("moving_variance", trainable=False))
    return (*_scale_and_center(config), *statistics)


def _batch_normalization(step: Step) -> Tensor:
    """One BatchNormalization where the channels are its axis: the builder folds it or writes it out."""
    x, options, canvas = step.x, step.options, step.canvas
    options.idle("momentum", "synchronized", "fused", "virtual_batch_size")
    axis = options.axis("axis", x.rank, -1)
    epsilon = options.number("epsilon", 1e-3)
    channels = (x.shape[axis - 1],)
    scale, center = options.flag("scale", True), options.flag("center", True)
    roles = {"gamma": scale, "beta": center, "moving_mean": True, "moving_variance": True}
    arrays = {role: step.array(role, *channels) for role, has in roles.items() if has}
    _check_variance(arrays["moving_variance"], "moving_variance")
    if axis == x.rank - 1 and (x.maps or x.rank == 2):
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        inputs = [
            canvas.weight(role, arrays[role]) if role in arrays else default
            for role, default in zip(roles, (ones, zeros, zeros, ones), strict=True)
        ]
        result = canvas.on("BatchNormalization", x, *inputs, epsilon=epsilon)
        canvas.batch_norms[canvas.nodes[-1].name] = (x.rank - 2, epsilon)
        return result
    factor, term = batch_norm_affine(epsilon, **arrays)
    shape = [1] * len(x.shape)
    shape[axis - 1] = channels[0]
    for operation, role, value in (("Mul", "scale", factor), ("Add", "shift", term)):
        x = canvas.on(operation, x, canvas.weight(role, canvas.laid(value.reshape(shape), x)))
    return x


def batch_norm_affine(
    epsilon: float,
    moving_mean: Array,
    moving_variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
) -> tuple[Array, Array]:
    """What a BatchNorm multiplies by and adds, computed in float64."""
    factor = 1 / np.sqrt(moving_variance.astype(np.float64) + epsilon)
    factor = factor if gamma is None else factor * gamma
    term = -moving_mean * factor
    return factor, term if beta is None else term + beta


def _check_variance(variance: Array, role: str) -> None:
    if not (variance >= 0).all():  # not a number is none either
        raise Refusal(f"its {role} has values below 0, which no variance can have")


def _normalization_holds(config: Config) -> tuple[Variable, ...]:
    """Statistics that the config gives are in no file."""
    if config.get("mean") is not None:
        return ()
    statistics = tuple(Variable(role, trainable=False) for role in ("mean", "variance"))
    return (*statistics, Variable("count", trainable=False))


def _normalization(step: Step) -> Tensor:
    """`(x - mean) / deviation`, whose statistics are in the config or in the file."""
    x, options, canvas = step.x, step.options, step.canvas
    given = options.raw("axis", -1)
    axes = options.axes("axis", x.rank) if given not in (None, [], ()) else ()
    shape = tuple(side if axis in axes else 1 for axis, side in enumerate(x.shape, 1))
    kept = tuple(side for axis, side in enumerate(x.shape, 1) if axis in axes)
    values = [options.raw(role, None) for role in ("mean", "variance")]
    if values[0] is None:
        values = [step.array(role, *kept) for role in ("mean", "variance")]
    try:
        mean, variance = (
            np.broadcast_to(np.asarray(v, np.float64), kept or ()).reshape(shape) for v in values
        )
    except (TypeError, ValueError):
        raise Refusal(f"its mean and variance do not fit the shape {list(kept)}") from None
    _check_variance(variance, "variance")
    deviation = np.maximum(np.sqrt(variance), NORMALIZATION_EPSILON)
    by = {"mean": mean, "deviation": deviation}
    names = {role: canvas.weight(role, canvas.laid(value, x)) for role, value in by.items()}
    if options.flag("invert", False):
        return canvas.on("Add", canvas.on("Mul", x, names["deviation"]), names["mean"])
    return canvas.on("Div", canvas.on("Sub", x, names["mean"]), names["deviation"])


# --- By the statistics of each photo --------------------------------------------------------------------


def _scaled(step: Step, x: Tensor, axes: Sequence[int]) -> Tensor:
    """A normalized tensor times gamma plus beta, which have the sides along these axes."""
    shape = tuple(x.shape[axis - 1] for axis in axes)
    wide = [side if axis in axes else 1 for axis, side in enumerate(x.shape, 1)]

    def laid(array: Array) -> Array:
        return step.canvas.laid(array.reshape(wide), x)

    result = x
    for key, role, operation in (("scale", "gamma", "Mul"), ("center", "beta", "Add")):
        if step.options.flag(key, True):
            result = step.canvas.on(operation, result, step.weight(role, shape, laid))
    return result


def _without_mean(step: Step, x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon)`, in the form that ONNX Runtime makes one operation of."""
    canvas = step.canvas
    centred = canvas.binary("Sub", x, canvas.reduce("ReduceMean", x, axes))
    variance = canvas.reduce("ReduceMean", canvas.on("Pow", centred, 2), axes)
    deviation = canvas.on("Sqrt", canvas.on("Add", variance, epsilon))
    return canvas.binary("Div", centred, deviation)


def _layer_normalization(step: Step) -> Tensor:
    x = step.x
    axes = step.options.axes("axis", x.rank, -1)
    if list(axes) != sorted(axes):
        raise Refusal(f"axis {list(axes)} is read in rising order alone")
    x = step.canvas.as_keras(x) if axes == (x.rank - 1,) else x
    normal = _without_mean(step, x, axes, step.options.number("epsilon", 1e-3))
    return _scaled(step, normal, axes)


def _group_normalization(step: Step) -> Tensor:
    """Each group of channels, over all places, by its own mean and variance."""
    x, options, canvas = step.x, step.options, step.canvas
    axis = options.axis("axis", x.rank, -1)
    if axis != x.rank - 1:
        raise Refusal("axis is read where it is the last one")
    channels = x.shape[-1]
    groups = options.integer("groups", 32, low=-1)
    groups = channels if groups == -1 else groups
    if groups < 1 or channels % groups:
        raise Refusal(f"groups {groups} does not divide its {channels} channels")
    x = canvas.as_maps(x)
    flat = canvas.node("Reshape", x.name, np.array([-1, groups, math.prod(x.shape) // groups], np.int64))
    grouped = Tensor(flat, (groups, math.prod(x.shape) // groups))
    normal = _without_mean(step, grouped, (2,), options.number("epsilon", 1e-3))
    name = canvas.node("Reshape", normal.name, np.array([-1, *x.stored], np.int64))
    return _scaled(step, Tensor(name, x.shape, x.maps), (axis,))


def _rms_normalization(step: Step) -> Tensor:
    x, canvas = step.x, step.canvas
    axis = step.options.axis("axis", x.rank, -1)
    squares = canvas.reduce("ReduceMean", canvas.on("Mul", x, x.name), (axis,))
    epsilon = step.options.number("epsilon", 1e-6)
    normal = canvas.binary("Div", x, canvas.on("Sqrt", canvas.on("Add", squares, epsilon)))
    wide = [side if at == axis else 1 for at, side in enumerate(x.shape, 1)]
    scale = step.weight("scale", (x.shape[axis - 1],), lambda array: canvas.laid(array.reshape(wide), x))
    return canvas.on("Mul", normal, scale)


def _unit_normalization(step: Step) -> Tensor:
    return unit_length(step, step.x, list(step.options.axes("axis", step.x.rank, -1)))


LAYERS: dict[str, Kind] = {
    "BatchNormalization": Kind(_batch_normalization, _batch_norm_holds),
    "SyncBatchNormalization": Kind(_batch_normalization, _batch_norm_holds),
    "BatchNormalizationV1": Kind(_batch_normalization, _batch_norm_holds),
    "Normalization": Kind(_normalization, _normalization_holds),
    "LayerNormalization": Kind(_layer_normalization, _scale_and_center),
    "GroupNormalization": Kind(_group_normalization, _scale_and_center),
    "RMSNormalization": Kind(_rms_normalization, lambda _: (Variable("scale"),)),
    "UnitNormalization": Kind(_unit_normalization),
}
