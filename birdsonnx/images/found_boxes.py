"""A detector's boxes and the photos that were given, brought together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.images.crops import BoxRequest, Crop
from birdsonnx.images.detections import Detections, Entry
from birdsonnx.images.inputs import absolute
from birdsonnx.images.photo_list import Photo

Say = Callable[[str], None]

Refusals = list[tuple[Photo, str]]

LISTED = 3
"""Files named in one line."""


@dataclass
class Found:
    """What is to be named."""

    crops: list[Crop] = field(default_factory=list)
    """Each photo's follow each other, in the order of the detector's file."""
    refused: Refusals = field(default_factory=list)
    """Photos and boxes that cannot be named, and why."""


def find(detections: Detections, photos: Sequence[Photo], request: BoxRequest, say: Say) -> Found:
    """The crops of the photos; what is in one of both only is refused, or said.

    An image of the file is the photo whose name in results is its path, be it with Windows' backslashes, or
    whose place it is. Each entry is told its photo's name.

    Raises:
        DataError: not one image of the file is among the photos, or two are the same photo.
    """
    by_name = {photo.name: photo for photo in photos}
    by_place: dict[str, Photo] = {}
    found, seen = Found(), dict[str, str]()
    missing = []
    for entry in detections.entries:
        if not by_place and _is_absolute(entry.file):
            by_place = {absolute(photo.path): photo for photo in photos}
        photo = _photo_of(entry.file, by_name, by_place)
        if photo is None:
            missing.append(entry)
            continue
        other = seen.setdefault(photo.name, entry.file)
        if other is not entry.file:
            raise DataError(
                f"{detections.where}: {other!r} and {entry.file!r} are the same photo, {photo.path}"
            )
        entry.name = photo.name
        _take(found, entry, photo, request)
    if missing and not seen:
        raise DataError(
            f"{detections.where}: none of its {len(missing):,} images, such as {missing[0].file!r}, is among "
            f"the photos, such as {photos[0].name!r}; give the folder that its paths begin in"
        )
    _report(detections, missing, [name for name in by_name if name not in seen], found, say)
    return found


def _photo_of(file: str, by_name: dict[str, Photo], by_place: dict[str, Photo]) -> Photo | None:
    for spelled in (file, file.replace("\\", "/")):
        photo = by_name.get(spelled.removeprefix("./")) or by_place.get(spelled)
        if photo is not None:
            return photo
    return None


def _is_absolute(file: str) -> bool:
    return file.startswith(("/", "\\")) or file[1:2] == ":"


def _take(found: Found, entry: Entry, photo: Photo, request: BoxRequest) -> None:
    for index, _, box in entry.boxes:
        name = f"{photo.name}/{index}"
        crop = Crop(photo.path, name, box=box, cutting=request.cutting)
        if box.has_area:
            found.crops.append(crop)
        else:
            found.refused.append((crop, f"{photo.path}: the box {index} has no area"))


def _report(
    detections: Detections, missing: Sequence[Entry], others: Sequence[str], found: Found, say: Say
) -> None:
    """Refuse the images of the file that are not there, where they have boxes; say what is left out."""
    where = detections.where
    for entry in missing:
        if entry.boxes:
            reason = f"{entry.file}: {where} has boxes of it, and it is not among the photos"
            found.refused.append((Photo(Path(entry.file), entry.file), reason))
    if others:
        say(f"{where} does not mention {_counted(others, 'photo')}: left out")
    without = sum(entry.is_photo and not entry.boxes for entry in missing)
    if without:
        say(f"{where}: {without:,} of its images without boxes to name are not among the photos")
    if detections.failed:
        say(f"{where}: the detector could not read {detections.failed:,} of its images: left out")
    if detections.videos:
        say(f"{where}: {detections.videos:,} of its files are videos: left out")
    if not found.crops and not found.refused:
        say(f"{where}: no box in it is to be named; see --min-confidence and --detection-categories")


def _counted(names: Sequence[str], what: str) -> str:
    """`5 photos (a.jpg, b.jpg, c.jpg and 2 more)`."""
    shown = ", ".join(ascii(name)[1:-1] for name in names[:LISTED])
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{len(names):,} {what}{'s' if len(names) > 1 else ''} ({shown}{more})"
