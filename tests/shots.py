"""Photos with EXIF data, as cameras write them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

NOON = datetime(2026, 5, 4, 12)

Base, GPS = ExifTags.Base, ExifTags.GPS


def exif_of(
    main: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    place: dict[int, Any] | None = None,
) -> Image.Exif:
    """EXIF data of the three directories that cameras write."""
    exif = Image.Exif()
    exif.update(main or {})
    exif.get_ifd(ExifTags.IFD.Exif).update(details or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place or {})
    return exif


def taken(after_s: float | None, model: str = "TrapCam") -> Image.Exif:
    """Of a photo that was taken so long after noon; None: it does not say when."""
    if after_s is None:
        return exif_of({Base.Model: model})
    time = (NOON + timedelta(seconds=after_s)).strftime("%Y:%m:%d %H:%M:%S")
    return exif_of({Base.Model: model}, {Base.DateTimeOriginal: time})


def save(image: Image.Image, path: str | Path, exif: Image.Exif) -> Path:
    """A photo at full quality, in a folder that is made where it has none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif.tobytes(), quality=95)  # of an Exif, a TIFF would get the first part only
    return path
