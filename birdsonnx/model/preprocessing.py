"""What happens to a pixel between uint8 and the network: one affine map per channel, inside the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.config.transforms import Normalize

# Means and deviations of ImageNet, as keras.applications.imagenet_utils uses them (0-255; RGB for torch).
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
TORCH_MEAN_RGB = (0.485, 0.456, 0.406)
TORCH_STD_RGB = (0.229, 0.224, 0.225)

MODES = ("caffe", "torch", "tf", "unit", "none")


@dataclass(frozen=True)
class Preprocessing:
    """`value * scale + offset` on pixel values 0-255, per channel, in the order the network wants."""

    name: str
    bgr: bool
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The network's input for uint8 `[batch, height, width, channels]`; the graph computes the same."""
        ordered = pixels[..., ::-1] if self.bgr else pixels
        values = ordered.astype(np.float32)
        scale, offset = np.array(self.scale, np.float32), np.array(self.offset, np.float32)
        return values * scale + offset

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "bgr": self.bgr,
            "scale": list(self.scale),
            "offset": list(self.offset),
        }


def of_mode(mode: str, channels: int) -> Preprocessing:
    """One of Keras' modes (`keras.applications.imagenet_utils.preprocess_input`), `unit` or `none`.

    Raises:
        ValueError: caffe or torch for a network that does not take 3 channels, or an unknown mode.
    """
    if mode in ("caffe", "torch") and channels != 3:
        raise ValueError(f"{mode} preprocessing needs 3 channels, the network takes {channels}")
    if mode == "caffe":
        return Preprocessing(mode, True, (1.0, 1.0, 1.0), tuple(-mean for mean in CAFFE_MEAN_BGR))
    if mode == "torch":
        return of_normalize(Normalize(TORCH_MEAN_RGB, TORCH_STD_RGB), 3, mode)
    scale, offset = {"tf": (1 / 127.5, -1.0), "unit": (1 / 255, 0.0), "none": (1.0, 0.0)}[mode]
    return Preprocessing(mode, False, (scale,) * channels, (offset,) * channels)


def of_normalize(normalize: Normalize, channels: int, name: str = "normalize") -> Preprocessing:
    """The config's `normalize`: `(value / 255 - mean) / std`, RGB.

    Raises:
        ValueError: a list of another length than the network's channels.
    """
    mean, std = (_per_channel(numbers, channels) for numbers in (normalize.mean, normalize.std))
    scale = tuple(1 / (255 * deviation) for deviation in std)
    offset = tuple(-average / deviation for average, deviation in zip(mean, std, strict=True))
    return Preprocessing(name, False, scale, offset)


def _per_channel(numbers: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(numbers) == 1:
        return (numbers[0],) * channels
    if len(numbers) != channels:
        raise ValueError(f"normalize has {len(numbers)} values, the network takes {channels} channel(s)")
    return tuple(numbers)
