"""The one path from a photo file to the network's pixels, for training, prediction and evaluation alike."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image

from birdsonnx.config.color_codes import GRAY, RGB
from birdsonnx.config.transforms import (
    CenterCrop,
    ConvertColor,
    JitterCrop,
    Normalize,
    Resize,
    ResizeShorter,
    Rotate,
    Transform,
    color_steps,
)
from birdsonnx.errors import ConfigError, ImageError
from birdsonnx.images.colors import opencv_version
from birdsonnx.images.damage import require_whole_jpeg, require_whole_tiff
from birdsonnx.images.photo_file import Source, image_in, opened, size_of
from birdsonnx.images.transforms import transformed
from birdsonnx.runtime.memory import for_pictures

Pixels = npt.NDArray[np.uint8]

Size = tuple[int, int]
"""Width and height."""

PIXELS_VERSION = 1
"""Raise it with every change of this room that gives any photo other pixels: the decoder, the transforms, the
order of their steps. Features that were cached from the old pixels are not used then."""

DRAFT = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (libjpeg scales in the transform domain) where both sides
stay this many times as long as the resize makes them; Pillow's own thumbnails use the same factor."""

BYTES_PER_PIXEL = 12
"""Of a picture while it is decoded: 4 as Pillow holds it, 4 more to turn it upright, 4 for other colours."""
MORE_BYTES_PER_PIXEL = {"WEBP": 21, "AVIF": 16}
"""Of formats whose libraries hold pictures of their own meanwhile (measured: 20.3 and 15.7)."""
COEFFICIENT_BYTES = 6
"""Of a pixel of a JPEG that comes in several scans: libjpeg keeps all of it, at whatever scale it decodes."""
JPEGS = ("JPEG", "MPO")

MODES = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "L"}
"""Pillow's modes of what simplejpeg says that a JPEG holds."""

COLORSPACES = {"RGB": "RGB", "L": "GRAY"}
"""What simplejpeg calls Pillow's modes."""

ORIENTED = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
"""The first bytes of the JPEG segments that can hold an orientation."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that sets a photo upright, by its EXIF orientation."""

SIDEWAYS = (5, 6, 7, 8)
"""Orientations of photos whose width becomes their height."""


@dataclass(frozen=True)
class Decoder:
    """The steps from a photo's file to pixels: decode, then the transforms in their order.

    `normalize` is no step here: it is arithmetic in the network's graph.
    """

    height: int
    width: int
    channels: int
    transforms: tuple[Transform, ...]
    mode: str
    """Pillow's, of the decoded photo: RGB or L."""
    opencv: str = ""
    """Its version where a transform is computed by it: what pixels come out may depend on it."""

    def __call__(
        self, source: Source, chance: np.random.Generator | None = None, out: Pixels | None = None
    ) -> Pixels:
        """Read one photo as uint8 `[height, width, channels]`, into `out` where that is given.

        Training gives the photo's generator (`transforms.chance_of`); the random transforms act only then.

        Raises:
            ImageError: missing, truncated, oversized, of another format, or of another size than the
                network's when no transform settles it.
        """
        with opened(source) as file:
            straight = self._straight(file, out) if chance is None else None
            if straight is not None:
                return straight
            with image_in(file, source) as image, for_pictures().taking(self._bytes_of(file, image)):
                pixels = self.transformed(self._picture(file, image), source, chance)
        if out is None:
            return pixels
        out[...] = pixels
        return out

    def opened(self, source: Source) -> Image.Image:
        """The photo, upright, in RGB or gray; where a resize comes first, a JPEG's pixels may be
        averages of 2, 4 or 8 pixels each way. Raises ImageError."""
        with (
            opened(source) as file,
            image_in(file, source) as image,
            for_pictures().taking(self._bytes_of(file, image)),
        ):
            return self._picture(file, image)

    @contextmanager
    def upright(self, source: Source, shortest: Callable[[Size], int]) -> Iterator[tuple[Pixels, int]]:
        """A photo's pixels, upright, uint8 `[height, width]` or `[height, width, 3]`, and at what part of its
        size they are: 1, or 2, 4 or 8 where parts of it are to be resized first of all.

        Args:
            source: the photo.
            shortest: the shortest side of those parts, in pixels of the upright photo of a size.

        Raises:
            ImageError: as of `opened`; those of the body stay what they are.
        """
        with opened(source) as file, image_in(file, source) as image:
            turn = _orientation(image) or 0
            size = image.size[::-1] if turn in SIDEWAYS else image.size
            scale = self._scale(image, shortest(size))
            with for_pictures().taking(self._bytes_of(file, image, scale)):
                yield _turned(_array_of(file, image, scale, self.mode), turn), scale

    def first_size(self, width: int, height: int) -> Size | None:
        """The size that the first transform resizes a picture of this size to; None where it does not."""
        match self.transforms[0] if self.transforms else None:
            case Resize() as step:
                return step.width, step.height
            case ResizeShorter() as step:
                return step.size_of(width, height)
        return None

    def _bytes_of(self, file: BinaryIO, image: Image.Image, scale: int | None = None) -> int:
        """What a picture may take in memory until it has the network's size."""
        pixels, scale = image.width * image.height, scale or self._scale(image)
        content = size_of(file)
        if scale == 1:
            return content + pixels * MORE_BYTES_PER_PIXEL.get(image.format or "", BYTES_PER_PIXEL)
        return content + pixels * COEFFICIENT_BYTES + pixels // scale**2 * BYTES_PER_PIXEL

    def _picture(self, file: BinaryIO, image: Image.Image) -> Image.Image:
        picture = _pixels_of(file, image, self._scale(image))
        turn = TURNED.get(_orientation(image) or 0)
        upright = picture if turn is None else picture.transpose(turn)
        return upright if upright.mode == self.mode else upright.convert(self.mode)

    def _scale(self, image: Image.Image, shortest: int | None = None) -> int:
        """How many pixels each way a photo may be averaged while it is decoded: 8, 4, 2 or 1; always 1 unless
        it is a JPEG of usual colours. `shortest` is the shortest side of what is resized; None: the photo's.

        Only what divides both sides: else libjpeg makes a whole pixel of what is left of the last block.
        """
        first = self.transforms[0] if self.transforms else None
        if image.format not in JPEGS or image.mode not in COLORSPACES:
            return 1
        match first:
            case Resize():
                least = DRAFT * max(first.width, first.height)
            case ResizeShorter():
                least = DRAFT * first.side
            case _:
                return 1
        fits = (
            scale
            for scale in (8, 4, 2)
            if image.width % scale == image.height % scale == 0
            and (shortest or min(image.size)) // scale >= least
        )
        return next(fits, 1)

    def _straight(self, file: BinaryIO, out: Pixels | None) -> Pixels | None:
        """The pixels of a JPEG that has the network's size and colours already, or None.

        It needs no picture of Pillow's, which has 4 bytes a pixel: 0.21 instead of 0.49 ms for 224 x 224.
        """
        size = (self.width, self.height)
        if not all(_keeps(step, size) for step in self.transforms):
            return None
        most = self.width * self.height * 3 + 2**16  # a JPEG is smaller than its pixels and a long header
        content = file.read(most)
        file.seek(0)
        if len(content) == most or any(mark in content for mark in ORIENTED):
            return None
        try:
            height, width, kept, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError:  # no JPEG
            return None
        if (width, height) != size or MODES.get(kept) != self.mode:
            return None
        require_whole_jpeg(content)
        pixels: Pixels = simplejpeg.decode_jpeg(content, COLORSPACES[self.mode], buffer=out)
        return pixels

    def transformed(
        self, image: Image.Image, source: Source | str, chance: np.random.Generator | None
    ) -> Pixels:
        """Apply the transforms to an opened photo; `source` names it in messages. Raises ImageError."""
        try:
            for step in self.transforms:
                image = transformed(image, step, chance)
        except ImageError as error:
            raise ImageError(f"{source}: {error}") from None
        if image.size != (self.width, self.height):
            raise ImageError(
                f"{source}: {image.width} x {image.height} pixels, but the network takes {self.width} x "
                f'{self.height}; add {{"resize": [{self.width}, {self.height}]}} to the transforms'
            )
        pixels = np.asarray(image)
        return pixels.reshape(self.height, self.width, self.channels)


def decoder(
    height: int,
    width: int,
    channels: int,
    transforms: Sequence[Transform] | None,
    grayscale: bool = False,
) -> Decoder:
    """A decoder for a network's input; without transforms, a plain resize to it.

    A photo starts as what the first convert_color takes; without one, as what the network takes.

    Args:
        grayscale: photos must start gray, or it is an error.

    Raises:
        ConfigError: the transforms end at another size than the network's, whatever the photo, or at
            another one each time, or at other channels.
        InstallationError: a transform needs OpenCV, which is not installed.
    """
    if transforms is None:
        transforms = (Resize(width, height),)
    steps: tuple[Transform, ...] = tuple(step for step in transforms if not isinstance(step, Normalize))
    _require_size(steps, width, height)
    first = next((step for step in steps if isinstance(step, ConvertColor)), None)
    starts_gray = grayscale or (channels == 1 if first is None else first.source == GRAY)
    try:
        steps, pixels = color_steps(steps, GRAY if starts_gray else RGB)
    except ValueError as error:
        raise ConfigError(f"the transforms do not fit together: {error}") from None
    _require_channels(channels, pixels, transforms)
    return Decoder(height, width, channels, steps, "L" if starts_gray else "RGB", opencv_version(steps))


def _require_channels(channels: int, pixels: str, transforms: Sequence[Transform]) -> None:
    if (pixels == GRAY) == (channels == 1):
        return
    what = "1 gray channel" if pixels == GRAY else f"3 channels ({pixels})"
    last = next((step for step in reversed(transforms) if isinstance(step, ConvertColor)), None)
    if last is not None:
        raise ConfigError(
            f"the transforms end at {what} ({last.as_json()}), but the network takes {channels}"
        )
    raise ConfigError(
        f"neural_network.data.grayscale: photos become {what}, but the network takes {channels}; remove the "
        'key, or repeat the gray in 3 channels with the transform {"convert_color": "GRAY2RGB"}'
    )


def _require_size(steps: Sequence[Transform], width: int, height: int) -> None:
    last: Resize | CenterCrop | None = None
    loose: JitterCrop | ResizeShorter | None = None
    """After which the size is another one each time, or for each photo."""
    for step in steps:
        if isinstance(step, JitterCrop | ResizeShorter):
            loose = step
        elif isinstance(step, CenterCrop) and isinstance(loose, JitterCrop):
            break  # it would undo the jitter, which keeps the centre, or lack pixels by chance
        elif isinstance(step, Resize | CenterCrop):
            if isinstance(step, CenterCrop) and isinstance(loose, ResizeShorter):
                _require_fitting(step, loose)
            last, loose = step, None
    if isinstance(loose, JitterCrop):
        raise ConfigError(
            f"the transform {loose.as_json()} leaves another size each time; put a resize after it, before "
            f'any center_crop: {{"resize": [{width}, {height}]}}'
        )
    if loose is not None:
        raise ConfigError(
            f"the transform {loose.as_json()} leaves the longer side as the photo has it; put a center_crop "
            f'after it: {{"center_crop": [{width}, {height}]}}'
        )
    if last is not None and (last.width, last.height) != (width, height):
        raise ConfigError(
            f"the transforms end at {last.width} x {last.height} pixels ({last.as_json()}), but the network "
            f"takes {width} x {height}"
        )


def _require_fitting(crop: CenterCrop, before: ResizeShorter) -> None:
    """Raises ConfigError where no photo has pixels enough for the crop, whichever way it lies."""
    if min(crop.width, crop.height) > before.side:
        raise ConfigError(
            f"the transform {crop.as_json()} takes more pixels than {before.as_json()} leaves of the shorter "
            f'side; make that {{"resize_shorter": {max(crop.width, crop.height)}}} or more'
        )


def _keeps(step: Transform, size: tuple[int, int]) -> bool:
    """Whether a transform does nothing to pictures of this size outside training."""
    match step:
        case Resize() | CenterCrop():
            return (step.width, step.height) == size
        case ResizeShorter():
            return step.side == min(size)
        case Rotate() | ConvertColor():
            return False
        case _:
            return True


def _pixels_of(file: BinaryIO, image: Image.Image, scale: int) -> Image.Image:
    """The pixels of a photo whose header was read, as Pillow's picture.

    A JPEG goes through simplejpeg, which refuses what libjpeg only warns of (data that end early, or cannot
    be right) and Pillow passes over; its pixels are the same bits, in half the time. What it raises is a
    ValueError, which `opened` makes an ImageError.
    """
    if image.format not in JPEGS:
        if image.format == "TIFF":
            require_whole_tiff(file, image)
        image.load()
        return image
    pixels = _jpeg_of(file, image, scale)
    return image if pixels is None else Image.fromarray(pixels)


def _array_of(file: BinaryIO, image: Image.Image, scale: int, mode: str) -> Pixels:
    """The same as an array, which of a JPEG has 3 bytes a pixel where Pillow's picture has 4, and 1.5 ms less
    to do for 2 megapixels; of another format in Pillow's `mode`."""
    if image.format not in JPEGS:
        return np.asarray(_pixels_of(file, image, scale).convert(mode))
    pixels = _jpeg_of(file, image, scale)
    return np.asarray(image.convert(mode)) if pixels is None else pixels


def _jpeg_of(file: BinaryIO, image: Image.Image, scale: int) -> Pixels | None:
    """The pixels of a JPEG, uint8 `[height, width]` or `[height, width, 3]`; None where Pillow decodes them,
    into `image`. Raises ValueError."""
    file.seek(0)
    content = file.read()
    require_whole_jpeg(content)
    if image.mode not in COLORSPACES:  # CMYK: simplejpeg only checks it
        simplejpeg.decode_jpeg(content, image.mode)
        file.seek(0)
        image.load()
        return None
    least = {"min_height": image.height // scale, "min_width": image.width // scale} if scale > 1 else {}
    pixels: Pixels = simplejpeg.decode_jpeg(content, COLORSPACES[image.mode], **least)
    return pixels[..., 0] if image.mode == "L" else pixels


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """A view of the pixels that stands upright, as `TURNED` does it."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::down, ::across]


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata: Pillow raises whatever its parser meets, and the pixels are fine
        return None
