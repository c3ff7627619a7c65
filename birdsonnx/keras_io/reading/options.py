"""The config of one layer, read strictly: each key is used, known to do nothing, or refused by its name."""

from collections.abc import Sequence
from typing import Any

from birdsonnx.config.wording import nearest, shown

IDLE = frozenset(
    (
        *(
            "name",
            "trainable",
            "dtype",
            "seed",
            "batch_input_shape",
            "batch_shape",
            "batch_size",
            "input_shape",
        ),
        *("input_dtype", "autocast"),
    )
)
"""Keys that say nothing of a prediction."""
IDLE_ENDS = ("_initializer", "_regularizer", "_constraint")
"""Ends of such keys: weights are read, and regularizers act in Keras' training."""
IDLE_IF_FALSE = frozenset(
    (
        *("quantization_config", "lora_rank", "lora_alpha", "renorm", "renorm_clipping"),
        *("sparse", "ragged", "optional", "rms_scaling"),
    )
)
"""Keys that do nothing at null, false and 0."""
IDLE_AT: dict[str, tuple[Any, ...]] = {"renorm_momentum": (0.99,), "data_format": ("channels_last", None)}
"""Keys that do nothing at these values."""
FLOATS = ("float32", "float16", "float64", "bfloat16", "mixed_float16", "mixed_bfloat16")
POLICIES = ("DTypePolicy", "Policy", "PolicyV1")
REQUIRED: Any = object()


class Refusal(ValueError):
    """Why a layer cannot be read, without its name; the builder adds that."""


class Options:
    """One layer's config. Readers check type and range; `finish` refuses what nobody asked for."""

    def __init__(self, config: Any) -> None:
        self._config = {key: _plain(value) for key, value in config.items()}
        self._used: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._config

    def raw(self, key: str, default: Any = REQUIRED) -> Any:
        """A value as it is."""
        self._used.add(key)
        if key not in self._config:
            if default is REQUIRED:
                raise Refusal(f"its config has no {key!r}, which Keras always writes")
            return default
        return self._config[key]

    def integer(self, key: str, default: Any = REQUIRED, low: int = 1) -> int:
        value = self.raw(key, default)
        if type(value) is not int or not low <= value < 2**31:
            raise self.wrong(key, f"a whole number from {low} on")
        return value

    def number(self, key: str, default: Any = REQUIRED) -> float:
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e38:
            raise self.wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        value = self.raw(key, default)
        if value not in (True, False):
            raise self.wrong(key, "true or false")
        return bool(value)

    def choice(self, key: str, known: Sequence[str], default: Any = REQUIRED) -> str:
        value = self.raw(key, default)
        if not isinstance(value, str) or value.lower() not in known:
            raise self.wrong(key, f"one of {', '.join(known)}")
        return value.lower()

    def integers(self, key: str, count: int, default: Any = REQUIRED, low: int = 1) -> tuple[int, ...]:
        """So many whole numbers; one stands for all."""
        value = self.raw(key, default)
        values = [value] * count if type(value) is int else value
        fits = isinstance(values, list | tuple) and len(values) == count
        if not fits or not all(type(each) is int and low <= each < 2**31 for each in values):
            raise self.wrong(key, f"{count} whole number(s) from {low} on")
        return tuple(values)

    def axes(self, key: str, rank: int, default: Any = REQUIRED) -> tuple[int, ...]:
        """Axes behind the batch, counted from 1; the file may have an integer or a list, from either end."""
        value = self.raw(key, default)
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(type(each) is int and -rank <= each < rank for each in values):
            raise self.wrong(key, f"an axis, or a list of axes, of {rank}")
        counted = tuple(each % rank for each in values)
        if 0 in counted or len(set(counted)) < len(counted):
            raise self.wrong(key, "one or more different axes behind that of the photos")
        return counted

    def axis(self, key: str, rank: int, default: Any = REQUIRED) -> int:
        """One axis, as `axes` counts it."""
        axes = self.axes(key, rank, default)
        if len(axes) > 1:
            raise Refusal(f"{key} {list(axes)} is not read; one axis can be")
        return axes[0]

    def only(self, key: str, *values: Any) -> None:
        """A key that can be read at these values alone; the first is Keras' default."""
        value = self.raw(key, values[0])
        if not any(value == each and type(value) is type(each) for each in values):
            raise Refusal(f"{key} {shown(value)} is not read; what is: {', '.join(map(shown, values))}")

    def idle(self, *keys: str) -> None:
        """Keys that do nothing in a prediction, whatever they say."""
        self._used.update(keys)

    def wrong(self, key: str, wanted: str) -> Refusal:
        return Refusal(f"{key} must be {wanted}, got {shown(self._config.get(key))}")

    def finish(self) -> None:
        """Raises Refusal at a key that was not read and is not known to do nothing."""
        _check_dtype(self._config.get("dtype"))
        for key, value in self._config.items():
            if key in self._used or key in IDLE or key.endswith(IDLE_ENDS):
                continue
            if key in IDLE_IF_FALSE and value in (None, False, 0):
                continue
            if key in IDLE_AT and value in IDLE_AT[key]:
                continue
            if key in IDLE_AT or key in IDLE_IF_FALSE:
                raise Refusal(f"{key} {shown(value)} is not read")
            raise Refusal(
                f"its key {key!r} (with value {shown(value)}) is not known{nearest(key, self._used)}"
            )


def _plain(value: Any) -> Any:
    """Keras 3 writes tuples as objects, where lists mean the same."""
    if (
        isinstance(value, dict)
        and value.get("class_name") == "__tuple__"
        and isinstance(value.get("items"), list)
    ):
        return [_plain(each) for each in value["items"]]
    return value


def _check_dtype(value: Any) -> None:
    """Floating-point types are all computed in float32; a quantized layer's arrays mean something else."""
    name = value
    if isinstance(value, dict):
        config = value.get("config")
        known = value.get("class_name") in POLICIES and isinstance(config, dict)
        name = config.get("name") if known and isinstance(config, dict) else ""
    if name is not None and name not in FLOATS:
        raise Refusal(f"dtype {shown(value)} is not read; what is: {', '.join(FLOATS)}")


def precision(value: Any) -> str:
    """The name of a dtype or of a policy: `float32`, `mixed_float16` …"""
    name = (
        value["config"].get("name")
        if isinstance(value, dict) and isinstance(value.get("config"), dict)
        else value
    )
    return name if isinstance(name, str) else "float32"
