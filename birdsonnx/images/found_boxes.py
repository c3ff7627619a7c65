"""A detector's boxes and the photos that were given, brought together."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.images.crop_list import CropList
from birdsonnx.images.crops import BoxRequest
from birdsonnx.images.detected_images import Entry
from birdsonnx.images.detections import Detections
from birdsonnx.images.inputs import absolute
from birdsonnx.images.packed_texts import PackedTexts, TextPlaces
from birdsonnx.images.photo_list import Photo, names_of, paths_of

Say = Callable[[str], None]

Refusals = list[tuple[Photo, str]]

LISTED = 3
"""Files named in one line."""


@dataclass
class Found:
    """What is to be named."""

    crops: CropList
    """Each photo's follow each other, in the order of the detector's file."""
    refused: Refusals = field(default_factory=list)
    """Photos and boxes that cannot be named, and why."""


def find(detections: Detections, photos: Sequence[Photo], request: BoxRequest, say: Say) -> Found:
    """The crops of the photos; what is in one of both only is refused, or said.

    An image of the file is the photo whose name in results is its path, be it with Windows' backslashes, or
    whose place it is. The detections are told which photo each is.

    Raises:
        DataError: not one image of the file is among the photos, or two are the same photo.
    """
    look_up = _LookUp(photos)
    found = Found(CropList(photos, request.cutting))
    image_of = array("q", [-1]) * len(photos)
    """Of each photo."""
    detections.photos, detections.positions = photos, array("q")
    missing = array("q")
    for number, entry in enumerate(detections.entries):
        position = look_up.position(entry.file)
        detections.positions.append(-1 if position is None else position)
        if position is None:
            missing.append(number)
            continue
        if image_of[position] >= 0:
            other = detections.entries[image_of[position]].file
            raise DataError(
                f"{detections.where}: {other!r} and {entry.file!r} are the same photo, "
                f"{photos[position].path}"
            )
        image_of[position] = number
        _take(found, entry, photos[position], position)
    if len(missing) == len(detections.entries) > 0:
        raise DataError(
            f"{detections.where}: none of its {len(missing):,} images, such as "
            f"{detections.entries[0].file!r}, is among the photos, such as {photos[0].name!r}; give the "
            "folder that its paths begin in"
        )
    others = [position for position, number in enumerate(image_of) if number < 0]
    _report(detections, missing, others, found, say)
    return found


class _LookUp:
    """Photos by what an image of a detector's file may be called."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        self._photos = photos
        self._names = TextPlaces(PackedTexts(names_of(photos)))
        self._places: TextPlaces | None = None

    def position(self, file: str) -> int | None:
        """Of the photo that an image is; None: it is none of them."""
        if self._places is None and _is_absolute(file):
            self._places = TextPlaces(PackedTexts(absolute(Path(path)) for path in paths_of(self._photos)))
        for spelled in (file, file.replace("\\", "/")):
            found = self._names.find(spelled.removeprefix("./"))
            if found is None and self._places is not None:
                found = self._places.find(spelled)
            if found is not None:
                return found
        return None


def _is_absolute(file: str) -> bool:
    return file.startswith(("/", "\\")) or file[1:2] == ":"


def _take(found: Found, entry: Entry, photo: Photo, position: int) -> None:
    for place, _, box in entry.boxes:
        if box.has_area:
            found.crops.append(position, place, box)
        else:
            crop = found.crops.crop(photo, place, box)
            found.refused.append((crop, f"{photo.path}: the box {place} has no area"))


def _report(
    detections: Detections, missing: Sequence[int], others: Sequence[int], found: Found, say: Say
) -> None:
    """Refuse the images of the file that are not there, where they have boxes; say what is left out."""
    where, without = detections.where, 0
    for number in missing:
        entry = detections.entries[number]
        without += entry.is_photo and not entry.boxes
        if entry.boxes:
            reason = f"{entry.file}: {where} has boxes of it, and it is not among the photos"
            found.refused.append((Photo(Path(entry.file), entry.file), reason))
    if others:
        names = [detections.photos[position].name for position in others[:LISTED]]
        say(f"{where} does not mention {_counted(names, len(others), 'photo')}: left out")
    if without:
        say(f"{where}: {without:,} of its images without boxes to name are not among the photos")
    if detections.failed:
        say(f"{where}: the detector could not read {detections.failed:,} of its images: left out")
    if detections.videos:
        say(f"{where}: {detections.videos:,} of its files are videos: left out")
    if not found.crops and not found.refused:
        say(f"{where}: no box in it is to be named; see --min-confidence and --detection-categories")


def _counted(first: Sequence[str], count: int, what: str) -> str:
    """`5 photos (a.jpg, b.jpg, c.jpg and 2 more)`."""
    shown = ", ".join(ascii(name)[1:-1] for name in first)
    more = f" and {count - len(first):,} more" if count > len(first) else ""
    return f"{count:,} {what}{'s' if count > 1 else ''} ({shown}{more})"
