"""Parts of photos, as a detector's boxes give them: a photo is decoded once for all of its crops."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from birdsonnx.errors import ImageError
from birdsonnx.images.batches import Decoded, room_for
from birdsonnx.images.decoding import Decoder, Pixels, Size
from birdsonnx.images.photo_list import Photo


@dataclass(frozen=True)
class Cutting:
    """How a crop is cut out round a box."""

    padding: float = 0.0
    """What is added on every side, as a share of the box's longer side."""
    square: bool = True
    """Whether the shorter side grows as long as the longer one, so that a resize to a square squashes
    nothing."""


@dataclass(frozen=True)
class BoxRequest:
    """Which boxes of a detector are to be named."""

    file: Path
    """In MegaDetector's format."""
    min_confidence: float = 0.2
    categories: tuple[str, ...] | None = None
    """Names of the detector's categories; none at all means every one, and None `animal` where there is such
    a category, else every one."""
    cutting: Cutting = Cutting()

    @property
    def options(self) -> dict[str, str | float | Path]:
        """As they are typed, where they are not the usual ones; an empty text stands for no value."""
        usual = BoxRequest(self.file)
        found: dict[str, str | float | Path] = {"--detections": self.file}
        if self.min_confidence != usual.min_confidence:
            found["--min-confidence"] = self.min_confidence
        if self.categories is not None:
            found["--detection-categories"] = ",".join(self.categories) or EVERY
        if self.cutting.padding != usual.cutting.padding:
            found["--crop-padding"] = self.cutting.padding
        if self.cutting.square != usual.cutting.square:
            found["--no-crop-square"] = ""
        return found


EVERY = "all"
"""What stands for every category."""


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a photo that stands upright: shares of its width and height, from its upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def has_area(self) -> bool:
        """Whether some of it lies within the photo."""
        (left, right), (top, bottom) = _cut_off(self.left, self.width, 1), _cut_off(self.top, self.height, 1)
        return left < right and top < bottom


@dataclass(frozen=True, slots=True)
class Crop(Photo):
    """A part of a photo, with a name of its own."""

    box: Box = field(kw_only=True)
    cutting: Cutting = field(kw_only=True, default=Cutting())

    def region(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in pixels, of what is cut out of an upright photo of this size; at
        least one pixel.

        A box that reaches over the photo's edge is cut off there. What padding or a square adds beyond an
        edge is cut off too where it is not to be square; else the square moves inwards, as long as the photo
        has room for it.
        """
        x, right = _cut_off(self.box.left, self.box.width, width)
        y, bottom = _cut_off(self.box.top, self.box.height, height)
        margin = 2 * self.cutting.padding * max(right - x, bottom - y)
        wide, high = right - x + margin, bottom - y + margin
        if self.cutting.square:
            wide = high = max(wide, high)
        left, right = self._side((x + right) / 2, wide, width)
        top, bottom = self._side((y + bottom) / 2, high, height)
        return left, top, right, bottom

    def _side(self, middle: float, length: float, whole: int) -> tuple[int, int]:
        if self.cutting.square:
            length = min(length, whole)
            middle = min(max(middle, length / 2), whole - length / 2)
        start = min(max(round(middle - length / 2), 0), whole - 1)
        return start, min(max(round(middle + length / 2), start + 1), whole)


def _cut_off(start: float, length: float, whole: int) -> tuple[float, float]:
    """Where a side begins and ends, in pixels."""
    return max(start, 0.0) * whole, min(start + length, 1.0) * whole


MOST_RUNS = 8
"""Of one piece; of random numbers of boxes nearly every piece ends before with a full run."""


def pieces(groups: Iterable[range], per_run: int) -> Iterator[list[range]]:
    """Whole photos for a stream to work through: so many that their crops fill every run of `per_run`, as far
    as `MOST_RUNS` runs allow."""
    piece: list[range] = []
    count = 0
    for group in groups:
        piece.append(group)
        count += len(group)
        if count % per_run == 0 or count >= MOST_RUNS * per_run:
            yield piece
            piece, count = [], 0
    if piece:
        yield piece


def decode_runs(
    decoder: Decoder, crops: Sequence[Photo], piece: Sequence[range], per_run: int
) -> Iterator[Decoded]:
    """The crops of some photos in runs of `per_run`, as `batches.decode` gives photos. One photo at a time is
    in memory, and one run of crops. Where a photo cannot be decoded, the reason is given for each of its
    crops."""
    pixels, good = room_for(decoder, per_run), list[int]()
    refused: list[tuple[int, str]] = []
    for group in piece:
        try:
            with _decoded(decoder, [crops[index] for index in group]) as shown:
                for index in group:
                    try:
                        pixels[len(good)] = shown.cut(crops[index])
                        good.append(index)
                    except ImageError as error:
                        refused.append((index, str(error)))
                    if len(good) == per_run:
                        yield pixels, good, refused
                        pixels, good, refused = room_for(decoder, per_run), [], []
        except ImageError as error:
            refused += [(index, str(error)) for index in group]
    if good or refused:
        yield pixels[: len(good)], good, refused


@dataclass(frozen=True)
class _Shown:
    """A decoded photo, of which crops are cut."""

    decoder: Decoder
    pixels: Pixels
    """Upright, uint8 `[height, width]` or `[height, width, 3]`, at 1/`scale` of the photo's size."""
    scale: int

    def cut(self, crop: Photo) -> Pixels:
        """The network's pixels of a crop, uint8 `[height, width, channels]`. Raises ImageError."""
        assert isinstance(crop, Crop)
        height, width = (side * self.scale for side in self.pixels.shape[:2])
        region = crop.region(width, height)
        left, top, right, bottom = region
        inner = tuple(side / self.scale for side in region)
        # Whole pixels of the decoded photo, and the region as it lies in them.
        left, top = left // self.scale, top // self.scale
        right, bottom = -(-right // self.scale), -(-bottom // self.scale)
        image = Image.fromarray(np.ascontiguousarray(self.pixels[top:bottom, left:right]))
        if image.mode != self.decoder.mode:
            image = image.convert(self.decoder.mode)
        if self.scale > 1:
            size = self.decoder.first_size(region[2] - region[0], region[3] - region[1])
            assert size is not None  # only such photos are decoded smaller
            box = (inner[0] - left, inner[1] - top, inner[2] - left, inner[3] - top)
            image = image.resize(size, Image.Resampling.BILINEAR, box)
        return self.decoder.transformed(image, f"{crop.path}: the box {crop.name.rpartition('/')[2]}", None)


@contextmanager
def _decoded(decoder: Decoder, crops: Sequence[Photo]) -> Iterator[_Shown]:
    """The photo that some crops are parts of. Raises ImageError."""

    def shortest(size: Size) -> int:
        regions = (crop.region(*size) for crop in crops if isinstance(crop, Crop))
        return min(min(right - left, bottom - top) for left, top, right, bottom in regions)

    with decoder.upright(crops[0].path, shortest) as (pixels, scale):
        yield _Shown(decoder, pixels, scale)
