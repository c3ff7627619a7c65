"""The list of transforms in the config's text: each name with the values that it takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from birdsonnx.config.color_codes import COLOR_CODES, GRAY, ORDERS, OTHER_PIXELS
from birdsonnx.config.transforms import (
    CenterCrop,
    ConvertColor,
    JitterCrop,
    Normalize,
    RandomHorizontalFlip,
    RandomRotate,
    RandomVerticalFlip,
    RandomZoom,
    Resize,
    ResizeShorter,
    Rotate,
    Transform,
)
from birdsonnx.config.wording import any_case, nearest, refusal, shown


class Parameter(Protocol):
    """The value of a transform in the config: how it is read, and which values it may have."""

    def read(self, name: str, value: Any) -> tuple[Any, ...]:
        """The transform's fields. Raises PydanticCustomError."""

    def schema(self) -> dict[str, Any]:
        """The values that `read` takes, as JSON Schema."""


@dataclass(frozen=True)
class _Number:
    """A number within bounds."""

    says: str
    least: float
    most: float
    below: bool = False
    """Whether it stays below `most`."""

    def read(self, name: str, value: Any) -> tuple[float]:
        if (
            not _is_finite(value)
            or not self.least <= value <= self.most
            or (self.below and value == self.most)
        ):
            raise refusal(f"'{name}' takes {self.says}, got {shown(value)}")
        return (float(value),)

    def schema(self) -> dict[str, Any]:
        bound = "exclusiveMaximum" if self.below else "maximum"
        return {"type": "number", "minimum": self.least, bound: self.most}


class _Side:
    """A number of pixels."""

    most = 4096

    def read(self, name: str, value: Any) -> tuple[int]:
        if type(value) is not int or not 0 < value <= self.most:
            raise refusal(
                f"'{name}' takes the shorter side in pixels, from 1 to {self.most}, got {shown(value)}"
            )
        return (value,)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 1, "maximum": self.most}


@dataclass(frozen=True)
class _Size:
    """`[width, height]` in pixels."""

    most: int = 16384

    def read(self, name: str, value: Any) -> tuple[int, int]:
        pair = isinstance(value, list) and len(value) == 2
        if not pair or not all(type(side) is int and 0 < side <= self.most for side in value):
            raise refusal(f"'{name}' takes [width, height] in pixels, got {shown(value)}")
        return value[0], value[1]

    def schema(self) -> dict[str, Any]:
        side = {"type": "integer", "minimum": 1, "maximum": self.most}
        return {"type": "array", "items": side, "minItems": 2, "maxItems": 2}


class _ColorCode:
    """A name of `COLOR_CODES`, in any case, with OpenCV's COLOR_ in front or without."""

    def read(self, name: str, value: Any) -> tuple[str]:
        if not isinstance(value, str):
            raise refusal(
                f"'{name}' takes OpenCV's name of a conversion, such as RGB2GRAY, got {shown(value)}"
            )
        word = value.upper().removeprefix("COLOR_")
        by_upper = {code.upper(): code for code in COLOR_CODES}
        if word in by_upper:
            return (by_upper[word],)
        if "2" in word and OTHER_PIXELS.search(word):
            raise refusal(
                f"'{name}' {shown(value)} is for pixels of other kinds than RGB or gray ones of 8 bits, "
                "which birdsonnx does not support"
            )
        guess = nearest(word, COLOR_CODES) or f"; known: {', '.join(COLOR_CODES)}"
        raise refusal(f"'{name}' does not know {shown(value)}{guess}")

    def schema(self) -> dict[str, Any]:
        return any_case(*COLOR_CODES, prefix="COLOR_")


class _MeanAndStd:
    """`{"mean": …, "std": …}`, each one number or one per channel; without one of them, 0 or 1."""

    def read(self, name: str, value: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
        settings = {key.lower(): number for key, number in value.items()} if isinstance(value, dict) else {}
        if not settings or not settings.keys() <= {"mean", "std"}:
            raise refusal(f'\'{name}\' takes {{"mean": …, "std": …}}, got {shown(value)}')
        mean, std = (
            self._numbers(f"{name}.{key}", settings.get(key, absent))
            for key, absent in (("mean", 0), ("std", 1))
        )
        if any(number <= 0 for number in std):
            raise refusal(f"'{name}.std' must be above 0, got {shown(value)}")
        return mean, std

    def _numbers(self, name: str, value: Any) -> tuple[float, ...]:
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) not in (1, 3) or not all(_is_finite(number) for number in numbers):
            raise refusal(f"'{name}' takes one number or one per channel, got {shown(value)}")
        return tuple(float(number) for number in numbers)

    def schema(self) -> dict[str, Any]:
        def numbers(says: str, **bounds: float) -> dict[str, Any]:
            number = {"type": "number", **bounds}
            lists = [{"type": "array", "items": number, "minItems": n, "maxItems": n} for n in (1, 3)]
            return {"description": says, "anyOf": [number, *lists]}

        means, deviations = numbers("Default: 0."), numbers("Default: 1.", exclusiveMinimum=0)
        return {
            "type": "object",
            "properties": {"mean": means, "std": deviations},
            "minProperties": 1,
            "additionalProperties": False,
        }


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond floating point
        return False


_SHARE = _Number("a number from 0 to below 1, a share of each side", 0, 1, below=True)

_PROBABILITY = _Number("a probability from 0 to 1", 0, 1)

TRANSFORMS: dict[str, tuple[type[Transform], Parameter]] = {
    "resize": (Resize, _Size()),
    "resize_shorter": (ResizeShorter, _Side()),
    "center_crop": (CenterCrop, _Size()),
    "jitter_crop": (JitterCrop, _SHARE),
    "random_horizontal_flip": (RandomHorizontalFlip, _PROBABILITY),
    "random_vertical_flip": (RandomVerticalFlip, _PROBABILITY),
    "random_zoom": (RandomZoom, _SHARE),
    "rotate": (Rotate, _Number("degrees from -360 to 360", -360, 360)),
    "random_rotate": (RandomRotate, _Number("degrees from 0 to 180", 0, 180)),
    "convert_color": (ConvertColor, _ColorCode()),
    "normalize": (Normalize, _MeanAndStd()),
}

MOST_STEPS = 32

MOST_PIXELS = 2**26
"""Over all steps: as many as one resize to 8192 x 8192 makes; and of one photo after a resize_shorter, which
makes much of a long strip."""

OTHER_TRANSFORMS = {"random_patches": "self-supervised inpainting"}


def parse_transforms(value: Any) -> tuple[Transform, ...]:
    """Read rmldnn's list of one-key objects, e.g. `[{"resize": [224, 224]}]`.

    Raises:
        PydanticCustomError: an unknown transform, one with bad parameters, or a `normalize` that is no last
            step.
    """
    if isinstance(value, list) and len(value) > MOST_STEPS:
        raise refusal(f"{len(value)} transforms are more than the {MOST_STEPS} allowed")
    if not isinstance(value, list):
        raise refusal(f'must be a list such as [{{"resize": [224, 224]}}], got {shown(value)}')
    transforms: list[Transform] = []
    for item in value:
        if not isinstance(item, dict) or len(item) != 1:
            raise refusal(f"each transform is an object with one key, got {shown(item)}")
        [(key, content)] = item.items()
        name = key.lower()
        if name in OTHER_TRANSFORMS:
            raise refusal(
                f"the transform '{key}' is for {OTHER_TRANSFORMS[name]}, which birdsonnx does not support"
            )
        if name not in TRANSFORMS:
            guess = nearest(key, TRANSFORMS) or f"; known: {', '.join(TRANSFORMS)}"
            raise refusal(f"unknown transform '{key}'{guess}")
        kind, parameter = TRANSFORMS[name]
        transforms.append(kind(*parameter.read(name, content)))
    _require_normalize_last(transforms)
    _require_bearable(transforms)
    return tuple(transforms)


def _require_bearable(transforms: Sequence[Transform]) -> None:
    """Raises PydanticCustomError where the list makes more pixels of a photo than anybody means: a second of
    work, or more memory than the largest photo takes."""
    made = size = 0
    for step in transforms:
        if isinstance(step, Resize | CenterCrop):
            size = step.width * step.height
        elif isinstance(step, ResizeShorter):
            size = step.side**2  # at least; how much more, the photo says
        made += size
    if made > MOST_PIXELS:
        raise refusal(f"they make {made:,} pixels of each photo; {MOST_PIXELS:,} are allowed over all steps")


def _require_normalize_last(transforms: Sequence[Transform]) -> None:
    """`normalize` is arithmetic in the network's graph, so it comes after all that changes pixels."""
    places = [place for place, step in enumerate(transforms) if isinstance(step, Normalize)]
    if len(places) > 1:
        raise refusal("'normalize' is given twice")
    for place in places:
        normalize = transforms[place]
        assert isinstance(normalize, Normalize)
        alike = len(set(normalize.mean)) == len(set(normalize.std)) == 1
        for step in transforms[place:]:
            # Where all channels are treated alike it may as well come first; else it would mean others.
            if isinstance(step, ConvertColor) and not (alike and step.target in (*ORDERS, GRAY)):
                raise refusal(f"'normalize' must come after convert_color {step.code}, not before it")
