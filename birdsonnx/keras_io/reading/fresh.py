"""Arrays for layers that no file fills: drawn as Keras' initializers draw them, from a seed of our own.

Each array depends on the seed, the path of its layer and its role, and on nothing else of the network.
Formulas: Glorot and Bengio 2010 (glorot), He et al. 2015 (he), LeCun et al. 1998 (lecun), Saxe et al. 2014
(orthogonal), with Keras' fans.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from birdsonnx.config.wording import nearest, shown
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading.records import Layer
from birdsonnx.model.graph import Array

TRUNCATED_DEVIATION = 0.87962566103423978
"""Standard deviation of a standard normal distribution that is cut off at 2 deviations."""
DEFAULTS = {
    **dict.fromkeys(("kernel", "depthwise_kernel", "pointwise_kernel"), "glorot_uniform"),
    **dict.fromkeys(("bias", "beta", "moving_mean", "mean", "count", "alpha"), "zeros"),
    **dict.fromkeys(("gamma", "moving_variance", "variance", "scale"), "ones"),
}
"""How Keras draws an array where the config does not say."""
KEYS = {"depthwise_kernel": "depthwise_initializer", "pointwise_kernel": "pointwise_initializer"}
"""Keys of the config that are not called after the role."""
HEADS = {"attention_output": ((0, 1), (2,))}
"""Axes of an attention's kernel that are summed over, and those that come out; of all others ..."""
OTHER_HEADS = ((0,), (1, 2))

Fans = tuple[int, int]
Draw = Callable[["Initializer", tuple[int, ...], Fans, np.random.Generator], Array]


@dataclass(frozen=True)
class Initializer:
    """One initializer of a config, with the names that Keras gives its arguments."""

    config: Mapping[str, Any]

    def number(self, key: str, default: float) -> float:
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e38:
            raise ValueError(f"its {key} must be a number, got {shown(value)}")
        return float(value)

    def choice(self, key: str, values: Sequence[str], default: str) -> str:
        value = self.config.get(key, default)
        if value not in values:
            raise ValueError(f"its {key} must be one of {', '.join(values)}, got {shown(value)}")
        return str(value)


def array(layer: Layer, role: str, shape: tuple[int, ...], seed: int, path: str, where: str) -> Array:
    """A layer's array without a file, float32.

    Raises:
        ModelError: its initializer is none of Keras' own, or has arguments that cannot be.
    """
    part, _, name = role.rpartition("/")
    value = _initializer_of(layer, name)
    try:
        kind, initializer = _known(value)
        fans = _fans(shape, *HEADS.get(part, OTHER_HEADS)) if part and len(shape) == 3 else fans_of(shape)
        inputs, outputs = (initializer.config.get(key) for key in ("input_axes", "output_axes"))
        if inputs is not None and outputs is not None:
            fans = _fans(shape, inputs, outputs)
        drawn = INITIALIZERS[kind](initializer, shape, fans, _generator(seed, path, role))
    except (IndexError, TypeError, ValueError) as error:
        raise ModelError(
            f"{where}: layer {path!r} ({layer.kind}): its {role} cannot be drawn afresh ({error})"
        ) from None
    return np.ascontiguousarray(drawn, np.float32).reshape(shape)


def _initializer_of(layer: Layer, name: str) -> Any:
    """What the config says of an array, or Keras' default."""
    if layer.kind == "LayerScale":
        return {"class_name": "Constant", "config": {"value": layer.config.get("init_values", 1e-6)}}
    keys = [KEYS.get(name, f"{name}_initializer")]
    if name == "kernel" and layer.kind.startswith("Depthwise"):
        keys.insert(0, "depthwise_initializer")
    given = next((layer.config[key] for key in keys if layer.config.get(key) is not None), None)
    return DEFAULTS.get(name) if given is None else given


def _known(value: Any) -> tuple[str, Initializer]:
    """The name in our table, and the arguments, of an initializer as a config has it."""
    config: Any = {}
    if isinstance(value, dict):
        value, config = value.get("class_name"), value.get("config") or {}
    name = value if isinstance(value, str) else ""
    kind = NAMES.get(name.replace("_", "").lower())
    if kind is None or not isinstance(config, dict):
        raise ValueError(f"its initializer {shown(value)} is not Keras' own{nearest(name, INITIALIZERS)}")
    return kind, Initializer(config)


def _generator(seed: int, path: str, role: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\n{path}\n{role}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


# --- Fans -----------------------------------------------------------------------------------------------


def fans_of(shape: Sequence[int]) -> Fans:
    """Values that one result sums up, and results that one value goes into, as Keras counts them."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


def _fans(shape: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Fans:
    return math.prod(shape[axis] for axis in inputs), math.prod(shape[axis] for axis in outputs)


# --- Distributions --------------------------------------------------------------------------------------


def _normal(shape: tuple[int, ...], mean: float, deviation: float, generator: np.random.Generator) -> Array:
    values = generator.standard_normal(shape, np.float32)
    return np.asarray(np.float32(mean) + np.float32(deviation) * values)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: np.random.Generator) -> Array:
    values = generator.random(shape, np.float32)
    return np.asarray(np.float32(low) + np.float32(high - low) * values)


def _truncated(
    shape: tuple[int, ...], mean: float, deviation: float, generator: np.random.Generator
) -> Array:
    """A normal distribution whose values beyond 2 deviations are drawn again."""
    values = generator.standard_normal(math.prod(shape), np.float32)
    while (beyond := np.flatnonzero(np.abs(values) > 2)).size:
        values[beyond] = generator.standard_normal(beyond.size, np.float32)
    return np.float32(mean) + np.float32(deviation) * values.reshape(shape)


def _scaled(scale: float, mode: str, distribution: str) -> Draw:
    """Keras' VarianceScaling with these arguments where the config has none: variance `scale / fan`."""

    def draw(given: Initializer, shape: tuple[int, ...], fans: Fans, generator: np.random.Generator) -> Array:
        factor = given.number("scale", scale)
        if factor <= 0:
            raise ValueError(f"its scale must be above 0, got {factor}")
        by = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": sum(fans) / 2}
        variance = factor / max(1.0, by[given.choice("mode", tuple(by), mode)])
        kinds = ("uniform", "normal", "truncated_normal", "untruncated_normal")
        kind = given.choice("distribution", kinds, distribution)
        if kind == "uniform":
            limit = math.sqrt(3 * variance)
            return _uniform(shape, -limit, limit, generator)
        if kind == "untruncated_normal":
            return _normal(shape, 0, math.sqrt(variance), generator)
        return _truncated(shape, 0, math.sqrt(variance) / TRUNCATED_DEVIATION, generator)

    return draw


def _orthogonal(given: Initializer, shape: tuple[int, ...], _: Fans, generator: np.random.Generator) -> Array:
    """Orthonormal columns, or rows where there are fewer, of the array with all axes but the last in one."""
    if len(shape) < 2:
        raise ValueError(f"an orthogonal initializer needs two axes or more, the shape is {list(shape)}")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return np.asarray(given.number("gain", 1.0) * (q if rows >= columns else q.T))


def _identity(given: Initializer, shape: tuple[int, ...], *_: Any) -> Array:
    if len(shape) != 2:
        raise ValueError(f"an identity needs two axes, the shape is {list(shape)}")
    return np.asarray(given.number("gain", 1.0) * np.eye(*shape))


def _constant(default: float, key: str = "") -> Draw:
    def draw(given: Initializer, shape: tuple[int, ...], *_: Any) -> Array:
        return np.full(shape, given.number(key, default) if key else default, np.float32)

    return draw


INITIALIZERS: dict[str, Draw] = {
    "zeros": _constant(0.0),
    "ones": _constant(1.0),
    "constant": _constant(0.0, "value"),
    "random_normal": lambda given, shape, _, generator: _normal(
        shape, given.number("mean", 0.0), given.number("stddev", 0.05), generator
    ),
    "truncated_normal": lambda given, shape, _, generator: _truncated(
        shape, given.number("mean", 0.0), given.number("stddev", 0.05), generator
    ),
    "random_uniform": lambda given, shape, _, generator: _uniform(
        shape, given.number("minval", -0.05), given.number("maxval", 0.05), generator
    ),
    "variance_scaling": _scaled(1.0, "fan_in", "truncated_normal"),
    "glorot_uniform": _scaled(1.0, "fan_avg", "uniform"),
    "glorot_normal": _scaled(1.0, "fan_avg", "truncated_normal"),
    "he_uniform": _scaled(2.0, "fan_in", "uniform"),
    "he_normal": _scaled(2.0, "fan_in", "truncated_normal"),
    "lecun_uniform": _scaled(1.0, "fan_in", "uniform"),
    "lecun_normal": _scaled(1.0, "fan_in", "truncated_normal"),
    "orthogonal": _orthogonal,
    "identity": _identity,
}
"""Keras' initializers, by the name that its layers take; class names are the same without `_`."""
NAMES = {
    **{name.replace("_", ""): name for name in INITIALIZERS},
    **{"normal": "random_normal", "uniform": "random_uniform", "zero": "zeros", "one": "ones"},
    **{f"{name}initializer": name for name in ("identity", "orthogonal")},
}
"""Names in our table by small letters alone, and other names that Keras knows."""
