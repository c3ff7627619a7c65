"""Photos that one camera took shortly after each other: by the time and the camera in their EXIF data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from PIL import ExifTags

from birdsonnx.images.folders import Photo
from birdsonnx.images.photo_file import image_in, opened

GAP = timedelta(minutes=1)
"""A photo taken so long after the one before, or sooner, belongs to its sequence: camera traps take a few
photos of each visit within seconds."""

TIME_FORMAT = "%Y:%m:%d %H:%M:%S"
"""EXIF 2.32, DateTimeOriginal."""


@dataclass(frozen=True)
class Shot:
    """When a photo was taken, and by which camera."""

    time: datetime
    camera: tuple[str, ...]
    """The folder of the photo, and what EXIF says of the camera: two of one model have a folder each."""


def shot_of(photo: Photo) -> Shot | None:
    """When and by which camera a photo was taken; None where the file does not say. Raises ImageError."""
    with opened(photo.path) as file, image_in(file, photo.path) as image:
        try:
            exif = image.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            words = (exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model))
            serial = details.get(ExifTags.Base.BodySerialNumber)
            time = datetime.strptime(_text(details.get(ExifTags.Base.DateTimeOriginal)), TIME_FORMAT)
        except Exception:  # no time, or damaged metadata: Pillow raises whatever its parser meets
            return None
    return Shot(time, (photo.name.rpartition("/")[0], *map(_text, (*words, serial))))


def in_sequences(photos: Sequence[Photo], shots: Sequence[Shot | None]) -> list[list[Photo]]:
    """The photos in groups: those of one camera, each taken within `GAP` of the one before, are one; a photo
    whose time is not known is one alone. In the order of their first photos."""
    place = {photo.name: number for number, photo in enumerate(photos)}
    groups: list[list[Photo]] = []
    by_camera: dict[tuple[str, ...], list[tuple[datetime, Photo]]] = {}
    for photo, shot in zip(photos, shots, strict=True):
        if shot is None:
            groups.append([photo])
        else:
            by_camera.setdefault(shot.camera, []).append((shot.time, photo))
    for taken in by_camera.values():
        taken.sort(key=lambda each: (each[0], each[1].name))
        before: datetime | None = None
        for time, photo in taken:
            if before is None or time - before > GAP:
                groups.append([])
            groups[-1].append(photo)
            before = time
    return sorted(groups, key=lambda group: min(place[photo.name] for photo in group))


def _text(value: Any) -> str:
    """What EXIF holds, without the zeros and blanks that fill it up."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")
