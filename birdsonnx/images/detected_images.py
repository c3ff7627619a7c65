"""What a detector says of images by the million, as numbers and bytes: where each stands in the detector's
file, and its boxes. An `Entry` with one `Box` takes 450 bytes, and here 73 and its file's name."""

from array import array
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from birdsonnx.images.crops import Box
from birdsonnx.images.made_on_access import MadeOnAccess
from birdsonnx.images.packed_texts import PackedTexts

FoundBox = tuple[int, str, Box]
"""Its place among the image's detections, its category, and where it is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the file."""

    file: str
    start: int
    end: int
    """Where it stands in the text."""
    boxes: list[FoundBox]
    """Those to be named."""
    is_photo: bool
    """Whether it is no video, and the detector could read it."""


class Entries(MadeOnAccess[Entry]):
    """Images in the order of the file; `entries[i]` is a new `Entry` each time."""

    def __init__(self) -> None:
        self._files = PackedTexts()
        self._spans = array("q")
        """Two of each image."""
        self._are_photos = bytearray()
        self._ends = array("q", [0])
        """Up to which box each image's go."""
        self._places, self._categories, self._sides = array("I"), array("I"), array("d")
        """Of each box; a category by its number in `_numbers`, and four sides."""
        self._numbers: dict[str, int] = {}
        self._wanted: Set[str] | None = None

    def append(self, file: str, start: int, end: int, boxes: Iterable[FoundBox], is_photo: bool) -> None:
        """Add an image."""
        for place, category, box in boxes:
            self._places.append(place)
            self._categories.append(self._numbers.setdefault(category, len(self._numbers)))
            self._sides.extend((box.left, box.top, box.width, box.height))
        self._files.append(file)
        self._spans.extend((start, end))
        self._are_photos.append(is_photo)
        self._ends.append(len(self._places))

    def want(self, categories: Set[str]) -> None:
        """Leave out the boxes of all others."""
        self._wanted = categories

    @property
    def categories(self) -> Set[str]:
        """Those of all boxes."""
        return self._numbers.keys()

    @property
    def files(self) -> Sequence[str]:
        """Each image's."""
        return self._files

    def __len__(self) -> int:
        return len(self._files)

    def made(self, index: int) -> Entry:
        names = list(self._numbers)
        boxes = [
            (self._places[each], names[self._categories[each]], Box(*self._sides[4 * each : 4 * each + 4]))
            for each in range(self._ends[index], self._ends[index + 1])
        ]
        if self._wanted is not None:
            boxes = [box for box in boxes if box[1] in self._wanted]
        start, end = self._spans[2 * index : 2 * index + 2]
        return Entry(self._files[index], start, end, boxes, bool(self._are_photos[index]))
