"""Crops by the million: the positions of their photos, and their boxes, as numbers. A `Crop` with its `Path`,
name and `Box` takes 600 bytes, and 40 here."""

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from birdsonnx.images.crops import Box, Crop, Cutting
from birdsonnx.images.made_on_access import MadeOnAccess
from birdsonnx.images.photo_list import Photo


class CropList(MadeOnAccess[Crop]):
    """Crops in order, to which more are appended; `crops[i]` is a new `Crop` each time.

    Args:
        photos: those that they are parts of.
        cutting: how all of them are cut.
    """

    __slots__ = ("_boxes", "_cutting", "_numbers", "_photos", "_sides")

    def __init__(self, photos: Sequence[Photo], cutting: Cutting) -> None:
        self._photos = photos
        self._cutting = cutting
        self._numbers = array("I")
        """Of each crop's photo."""
        self._boxes = array("I")
        """Each crop's place among all boxes of its photo."""
        self._sides = array("d")
        """Four of each crop."""

    def append(self, photo: int, place: int, box: Box) -> None:
        """Add a box, which has this place among all of its photo's."""
        self._numbers.append(photo)
        self._boxes.append(place)
        self._sides.extend((box.left, box.top, box.width, box.height))

    def __len__(self) -> int:
        return len(self._numbers)

    def made(self, index: int) -> Crop:
        box = Box(*self._sides[4 * index : 4 * index + 4])
        return self.crop(self._photos[self._numbers[index]], self._boxes[index], box)

    def crop(self, photo: Photo, place: int, box: Box) -> Crop:
        """A box that has this place among all of its photo's, cut as the others are."""
        return Crop(photo.path, f"{photo.name}/{place}", box=box, cutting=self._cutting)

    def whole_photos(self) -> Iterator[range]:
        """The positions of each photo's crops, which follow each other."""
        if not len(self):
            return
        numbers = np.frombuffer(self._numbers, np.uint32)
        start = 0
        for stop in [*(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]:
            yield range(start, int(stop))
            start = int(stop)
