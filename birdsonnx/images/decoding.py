"""The one path from a photo file to the network's pixels, for training, prediction and evaluation alike."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from birdsonnx.config import CenterCrop, Normalize, Resize, Transform
from birdsonnx.errors import ConfigError, ImageError

Pixels = npt.NDArray[np.uint8]

# Formats that only decode pixels. Pillow's other plug-ins (EPS starts Ghostscript) never see a file.
FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "PPM",
    TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)

# 512 MB of RGB; about 4 x the largest phone cameras. Checked from the header, before any pixel is decoded.
MAX_PIXELS = 178_956_970
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a photo upright, by its EXIF orientation."""

# Filters are set once: changing them around each photo is not safe with decoding threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # refused below, by name
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # remarks on odd metadata


@dataclass(frozen=True)
class Decoder:
    """What every photo goes through: decode, then the deterministic transforms.

    `normalize` is no step here: it is arithmetic, and lives in the network's graph.
    """

    height: int
    width: int
    channels: int
    transforms: tuple[Transform, ...]

    def __call__(self, path: Path) -> Pixels:
        """Read one photo as uint8 `[height, width, channels]`.

        Raises:
            ImageError: missing, truncated, oversized, of another format, or of another size than the
                network's when no transform settles it.
        """
        image = _open(path, "RGB" if self.channels == 3 else "L")
        for transform in self.transforms:
            if isinstance(transform, Resize):
                image = _resize(image, transform)
            elif isinstance(transform, CenterCrop):
                image = _center_crop(image, transform, path)
        if image.size != (self.width, self.height):
            raise ImageError(
                f"{path}: {image.width} x {image.height} pixels, but the network takes {self.width} x "
                f'{self.height}; add {{"resize": [{self.width}, {self.height}]}} to the transforms'
            )
        pixels = np.asarray(image)
        return pixels.reshape(self.height, self.width, self.channels)


def decoder(height: int, width: int, channels: int, transforms: Sequence[Transform] | None) -> Decoder:
    """A decoder for a network's input; without transforms, a plain resize to it.

    Raises:
        ConfigError: the transforms end at another size than the network's, whatever the photo.
    """
    if transforms is None:
        transforms = (Resize(width, height),)
    geometric = [step for step in transforms if not isinstance(step, Normalize)]
    if geometric and (geometric[-1].width, geometric[-1].height) != (width, height):
        last = geometric[-1]
        raise ConfigError(
            f"the transforms end at {last.width} x {last.height} pixels ({last.as_json()}), but the network "
            f"takes {width} x {height}"
        )
    return Decoder(height, width, channels, tuple(geometric))


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{path}: {image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} allowed"
                )
            if image.mode.startswith(("I", "F")) or _is_deep(image):
                raise ImageError(
                    f"{path}: {image.mode} pixels (16 bits or floating point); save it with 8 bits"
                )
            image.load()
            return _upright(image).convert(mode)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file (a broken link?)") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that can be read ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"{path}: its header announces more pixels than the {MAX_PIXELS:,} allowed"
        ) from None
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        # Pillow's decoders raise all of these on damaged files.
        reason = str(error) or type(error).__name__
        raise ImageError(f"{path}: cannot be decoded ({reason})") from None


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit channels to 8: it tells so only in the raw modes of its tiles."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(value, str) and ";16" in value for value in arguments):
            return True
        if image.format == "PPM" and any(isinstance(value, int) and value > 255 for value in arguments):
            return True
    return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata: Pillow raises whatever its parser meets, and the pixels are fine
        return image
    return image.transpose(TURNED[orientation]) if orientation in TURNED else image


def _resize(image: Image.Image, to: Resize) -> Image.Image:
    size = (to.width, to.height)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _center_crop(image: Image.Image, to: CenterCrop, path: Path) -> Image.Image:
    left, top = (image.width - to.width) // 2, (image.height - to.height) // 2
    if left < 0 or top < 0:
        raise ImageError(
            f"{path}: {image.width} x {image.height} pixels are too few for center_crop "
            f"{to.width} x {to.height}; put a resize before it"
        )
    return image.crop((left, top, left + to.width, top + to.height))
