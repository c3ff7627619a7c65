"""What each transform of the config does to a picture; Pillow moves the pixels.

Random ones draw numbers in [0, 1) from the photo's own generator, in the order of the list: two by
`jitter_crop` (across, then down), one by every other. The draws of a step never depend on its parameters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from birdsonnx.config.transform_list import MOST_PIXELS
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
from birdsonnx.errors import ImageError
from birdsonnx.images.colors import converted

AUGMENTATION = 1
"""Sets these generators apart from the shuffle's, which starts from [seed, epoch]. Not 0: numpy takes
[seed, epoch, 0, 0] for the same start."""


def chance_of(seed: int, epoch: int, photo: int) -> np.random.Generator:
    """The generator of one photo in one epoch; `photo` is its index in the list of training photos.

    It follows from these three alone, so that the number of ranks and threads, the order of the batches,
    and a stop and resume change nothing of what training sees.
    """
    return np.random.default_rng([seed, epoch, photo, AUGMENTATION])


@dataclass(frozen=True)
class Views:
    """Each photo as often, each time with other draws of the random transforms: training on one of them per
    epoch needs no new features.

    Rows of a table of views are the first photo's, then the second one's, and so on.
    """

    count: int
    """Of one photo."""
    seed: int

    def chance(self, row: int) -> np.random.Generator:
        """The generator of a view."""
        photo, view = divmod(row, self.count)
        return chance_of(self.seed, view, photo)

    def rows(self, photos: npt.NDArray[np.int64], epoch: int) -> npt.NDArray[np.int64]:
        """The rows of those views of some photos that an epoch sees: each in its turn, which is another one
        for the next photo."""
        return photos * self.count + (photos + epoch) % self.count


def transformed(image: Image.Image, step: Transform, chance: np.random.Generator | None) -> Image.Image:
    """The picture after one transform; a random one acts only where `chance` is given.

    Raises:
        ImageError: too few pixels for a center_crop, or a strip of which a resize_shorter makes too many.
    """
    match step:
        case Resize():
            return _resize(image, step.width, step.height)
        case ResizeShorter():
            return _resize_shorter(image, step)
        case CenterCrop():
            return _center_crop(image, step.width, step.height)
        case Rotate():
            return _rotate(image, step.degrees)
        case ConvertColor():
            return converted(image, step)
        case Normalize():
            return image  # arithmetic, not geometry: it lives in the network's graph
    if chance is None:
        return image
    match step:
        case JitterCrop():
            across, down = step.most * chance.random(2)
            return _cut(image, across, down)
        case RandomHorizontalFlip():
            return _flip(image, Image.Transpose.FLIP_LEFT_RIGHT, chance.random() < step.probability)
        case RandomVerticalFlip():
            return _flip(image, Image.Transpose.FLIP_TOP_BOTTOM, chance.random() < step.probability)
        case RandomZoom():
            return _zoom(image, step.most * chance.random())
        case RandomRotate():
            return _rotate(image, step.degrees * (2 * chance.random() - 1))


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    size = (width, height)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _resize_shorter(image: Image.Image, step: ResizeShorter) -> Image.Image:
    width, height = step.size_of(*image.size)
    if width * height > MOST_PIXELS:
        raise ImageError(
            f"{image.width} x {image.height} pixels would become {width:,} x {height:,} by resize_shorter "
            f"{step.side}; {MOST_PIXELS:,} pixels are allowed"
        )
    return _resize(image, width, height)


def _center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if left < 0 or top < 0:
        raise ImageError(
            f"{image.width} x {image.height} pixels are too few for center_crop {width} x {height}; "
            "put a resize before it"
        )
    return image.crop((left, top, left + width, top + height))


def _cut(image: Image.Image, across: float, down: float) -> Image.Image:
    # Rounded towards nothing: below a share of 1, at least one pixel remains of any side.
    x, y = int(across * image.width / 2), int(down * image.height / 2)
    return image.crop((x, y, image.width - x, image.height - y))


def _flip(image: Image.Image, how: Image.Transpose, does: bool) -> Image.Image:
    return image.transpose(how) if does else image


def _zoom(image: Image.Image, share: float) -> Image.Image:
    # A box of fractional pixels: every share gives a zoom of its own, however small the picture is.
    x, y = share * image.width / 2, share * image.height / 2
    box = (x, y, image.width - x, image.height - y)
    return image.resize(image.size, Image.Resampling.BILINEAR, box)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(-degrees, Image.Resampling.BILINEAR)  # Pillow counts counter-clockwise
