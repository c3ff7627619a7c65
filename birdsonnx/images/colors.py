"""Pixels of one colour space as those of another, as OpenCV's 8-bit conversions define them.

A picture stays a Pillow image of one or three channels, whatever its three channels mean. Formulas: OpenCV's
documentation, "Color conversions". The common ones are computed here, within 1 level of OpenCV; the others
need OpenCV itself, which is large.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from birdsonnx.config.color_codes import BGR, GRAY, ORDERS
from birdsonnx.config.transforms import ConvertColor, Transform
from birdsonnx.errors import InstallationError
from birdsonnx.extras import how_to_install

Pixels = npt.NDArray[np.uint8]

OWN_TARGETS = (GRAY, "HSV", "HSV_FULL", "YCrCb")
"""Conversions to these need no OpenCV."""


def is_own(step: ConvertColor) -> bool:
    """Whether a conversion is computed here."""
    orders = (*ORDERS, GRAY)
    return step.source in orders and step.target in (*orders, *OWN_TARGETS)


def opencv_version(transforms: Sequence[Transform]) -> str:
    """OpenCV's version where one of the transforms is computed by it, else an empty string.

    Raises:
        InstallationError: OpenCV is needed and not installed.
    """
    needing = [step for step in transforms if isinstance(step, ConvertColor) and not is_own(step)]
    if not needing:
        return ""
    try:
        import cv2
    except ImportError:
        raise InstallationError(
            f"convert_color {needing[0].code} needs OpenCV: {how_to_install('opencv')}"
        ) from None
    cv2.setNumThreads(1)  # photos are decoded beside each other; threads of its own would be too many
    return str(cv2.__version__)


def converted(image: Image.Image, step: ConvertColor) -> Image.Image:
    """The picture in another colour space: mode L for gray, else RGB, which only means 3 channels."""
    if not is_own(step):
        import cv2  # `opencv_version` has seen that it is there

        return Image.fromarray(cv2.cvtColor(np.asarray(image), getattr(cv2, f"COLOR_{step.code}")))
    if step.source == GRAY:
        return image.convert("RGB")  # the same value three times, in whichever order
    if BGR in (step.source, step.target):
        image = Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., ::-1]))
    match step.target:
        case "GRAY":
            return image.convert("L")
        case "HSV":
            return Image.fromarray(_hsv(np.asarray(image), 180))
        case "HSV_FULL":
            return Image.fromarray(_hsv(np.asarray(image), 256))
        case "YCrCb":
            return Image.fromarray(_ycrcb(np.asarray(image)))
    return image


def _hsv(rgb: Pixels, hues: int) -> Pixels:
    """Hue as one of `hues` steps around the circle, saturation and value of 255."""
    red, green, blue = np.moveaxis(rgb.astype(np.float32), 2, 0)
    value = rgb.max(axis=2).astype(np.float32)
    spread = value - rgb.min(axis=2)
    divisor = np.where(spread == 0, 1, spread)
    sixth = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = np.rint(sixth * (hues / 6)) % hues
    saturation = np.rint(255 * spread / np.where(value == 0, 1, value))
    return np.stack([hue, saturation, value], axis=2).astype(np.uint8)


def _ycrcb(rgb: Pixels) -> Pixels:
    values = rgb.astype(np.float32)
    luma = np.rint(values @ np.array([0.299, 0.587, 0.114], np.float32))
    red = np.rint((values[..., 0] - luma) * 0.713 + 128)
    blue = np.rint((values[..., 2] - luma) * 0.564 + 128)
    stacked: Pixels = np.clip(np.stack([luma, red, blue], axis=2), 0, 255).astype(np.uint8)
    return stacked
