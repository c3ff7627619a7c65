"""The transforms of photos, as the config describes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from birdsonnx.config.color_codes import COLOR_CODES, ORDERS


@dataclass(frozen=True)
class Resize:
    """Pillow's antialiased bilinear resize to `width` x `height` pixels."""

    width: int
    height: int

    def as_json(self) -> dict[str, Any]:
        return {"resize": [self.width, self.height]}


@dataclass(frozen=True)
class ResizeShorter:
    """Pillow's antialiased bilinear resize to so many pixels of the shorter side, in the photo's proportions:
    the longer side is longer x side / shorter, rounded down (as torchvision's and timm's `Resize(side)`)."""

    side: int

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture of these gets."""
        shorter = min(width, height)
        return width * self.side // shorter, height * self.side // shorter

    def as_json(self) -> dict[str, Any]:
        return {"resize_shorter": self.side}


@dataclass(frozen=True)
class CenterCrop:
    """The centre `width` x `height` pixels."""

    width: int
    height: int

    def as_json(self) -> dict[str, Any]:
        return {"center_crop": [self.width, self.height]}


@dataclass(frozen=True)
class ConvertColor:
    """Pixels of one colour space as those of another, by OpenCV's name of the conversion, with `COLOR_` or
    without, for 8-bit pixels of 1 and 3 channels. Photos are RGB here, and a code from RGB or BGR means the
    photo's colours in whichever order they are: `BGR2HSV` gives the right hues, and rmldnn's `BGR2RGB`, which
    undoes the order in which OpenCV reads, changes nothing. Some codes need the extra `opencv`."""

    code: str
    """As `COLOR_CODES` spells it."""

    @property
    def source(self) -> str:
        return COLOR_CODES[self.code][0]

    @property
    def target(self) -> str:
        return COLOR_CODES[self.code][1]

    def as_json(self) -> dict[str, Any]:
        return {"convert_color": self.code}


@dataclass(frozen=True)
class Normalize:
    """`(x - mean) / std` per channel, on values in [0, 1]; one number serves all channels. Without it the
    network's own preprocessing applies; with it, the network sees exactly `(x / 255 - mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        return {"normalize": {"mean": list(self.mean), "std": list(self.std)}}


@dataclass(frozen=True)
class Rotate:
    """A turn by so many degrees, clockwise; the size stays, and the corners become black."""

    degrees: float

    def as_json(self) -> dict[str, Any]:
        return {"rotate": self.degrees}


@dataclass(frozen=True)
class JitterCrop:
    """In training, c x side / 2 pixels less at both ends of each direction, with a c below this for each; a
    resize must follow."""

    most: float

    def as_json(self) -> dict[str, Any]:
        return {"jitter_crop": self.most}


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """In training, left becomes right with this probability."""

    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"random_horizontal_flip": self.probability}


@dataclass(frozen=True)
class RandomVerticalFlip:
    """In training, top becomes bottom with this probability."""

    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"random_vertical_flip": self.probability}


@dataclass(frozen=True)
class RandomZoom:
    """In training, the centre (1 - c) of both sides, enlarged to the size before, with one c below this."""

    most: float

    def as_json(self) -> dict[str, Any]:
        return {"random_zoom": self.most}


@dataclass(frozen=True)
class RandomRotate:
    """In training, a turn by up to so many degrees, either way."""

    degrees: float

    def as_json(self) -> dict[str, Any]:
        return {"random_rotate": self.degrees}


RandomTransform = JitterCrop | RandomHorizontalFlip | RandomVerticalFlip | RandomZoom | RandomRotate
"""These act in training only, and differently on each photo in each epoch."""

Transform = Resize | ResizeShorter | CenterCrop | Rotate | RandomTransform | ConvertColor | Normalize


def color_steps(transforms: Iterable[Transform], pixels: str) -> tuple[tuple[Transform, ...], str]:
    """The transforms as they act on `pixels` (RGB or GRAY), and what the pixels are in the end.

    A conversion from RGB or BGR is one from these colours in whichever order they lie, and none at all
    where they are its target already: the colours of the photo count, as where rmldnn's BGR2RGB undoes the
    order in which OpenCV reads.

    Raises:
        ValueError: a conversion from other pixels than there are.
    """
    steps: list[Transform] = []
    for step in transforms:
        if not isinstance(step, ConvertColor):
            steps.append(step)
            continue
        if step.source != pixels and not {step.source, pixels} <= set(ORDERS):
            raise ValueError(
                f"convert_color {step.code} takes {step.source} pixels, but they are {pixels} there"
            )
        if step.target != pixels:
            steps.append(_conversion(pixels, step.target))
        pixels = step.target
    return tuple(steps), pixels


def _conversion(source: str, target: str) -> ConvertColor:
    return ConvertColor(next(code for code, ends in COLOR_CODES.items() if ends == (source, target)))
