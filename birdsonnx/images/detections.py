"""A detector's boxes, read from a file in MegaDetector's batch format, versions 1.0 and higher (1.x).

The format: https://lila.science/megadetector-output-format. A box is `[x_min, y_min, width, height]`, each a
share of the photo's width or height from its upper left corner, of the photo as it stands upright. Nothing
that the file names is opened: its images are looked up among the photos that were given.
"""

import json
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.config.json_pieces import Piece, pieces
from birdsonnx.config.json_text import UnmeantError
from birdsonnx.config.section import Finite, Text, as_tuple
from birdsonnx.config.wording import nearest, nearest_path, refusal, shown
from birdsonnx.errors import ConfigError, DataError
from birdsonnx.images.crops import Box, BoxRequest
from birdsonnx.images.detected_images import Entries, Entry
from birdsonnx.images.packed_texts import TextPlaces
from birdsonnx.images.photo_list import Photo

LARGEST = 2**30
"""Bytes of such a file; a million photos with three boxes each have half of that."""

OVERSHOOT = 0.01
"""So much of a side a box may reach over the photo's edge, and is cut off there: detectors round."""

ANIMAL = "animal"
IMAGES, INFO = "images", "info"
CATEGORIES = "detection_categories"
VERSION = re.compile(r"1(\.\d+)?")


def _inside(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if min(box[2:]) < 0:
        raise refusal(f"a box has no negative width or height, got {shown(list(box))}")
    edges = ((box[0], box[0] + box[2]), (box[1], box[1] + box[3]))
    if any(first < -OVERSHOOT or last > 1 + OVERSHOOT for first, last in edges):
        raise refusal(
            "a box is [x_min, y_min, width, height] in shares of the photo's sides, and lies within 0 to 1, "
            f"got {shown(list(box))}"
        )
    return box


class Detection(BaseModel):
    """What the detector found at one place; other keys are passed over."""

    model_config = ConfigDict(strict=True, frozen=True)

    category: str
    conf: Annotated[float, Field(ge=-1, le=1)]
    """Below 0 where a tool has taken it for a thing that comes again and again."""
    bbox: Annotated[tuple[Finite, Finite, Finite, Finite], BeforeValidator(as_tuple), AfterValidator(_inside)]


class Image(BaseModel):
    """What the detector says of one file."""

    model_config = ConfigDict(strict=True, frozen=True)

    file: Text
    detections: list[Detection] | None = None
    failure: str | None = None


VIDEO_KEYS = ("frame_rate", "frames_processed")


@dataclass
class Detections:
    """A detector's file, of which the images stay text."""

    where: Path
    text: str
    head: dict[str, Any] = field(default_factory=dict)
    """All but the images, of which there is an empty list."""
    entries: Entries = field(default_factory=Entries)
    failed: int = 0
    """Images that the detector could not read."""
    videos: int = 0
    photos: Sequence[Photo] = ()
    """Those that were given, as far as that is known."""
    positions: "array[int]" = field(default_factory=lambda: array("q"))
    """Which of them each image is; -1: none."""

    def photo_name(self, index: int) -> str | None:
        """The name in results of an image's photo, where that is among those that were given."""
        position = self.positions[index]
        return None if position < 0 else self.photos[position].name

    def image(self, entry: Entry) -> dict[str, Any]:
        """An image as the file has it."""
        found: dict[str, Any] = json.loads(self.text[entry.start : entry.end])
        return found


def read(request: BoxRequest) -> Detections:
    """Read a detector's file, and choose the boxes that are to be named.

    Raises:
        DataError: there is none, or it is not in the format.
        ConfigError: the request asks for a category that it does not have.
    """
    found = Detections(request.file, _text_of(request.file))
    try:
        for piece in pieces(found.text, IMAGES):
            if piece.index is None:
                found.head[piece.key] = piece.value
            else:
                _take(found, piece, request.min_confidence)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{found.where}: {place}: {error.msg} (not valid JSON)") from None
    except UnmeantError as error:
        raise DataError(f"{found.where}: {error}") from None
    _require_head(found)
    _require_each_once(found)
    found.entries.want(_wanted(found, request.categories))
    return found


def _text_of(path: Path) -> str:
    try:
        return read_bytes(path, LARGEST).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file{nearest_path(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8, as JSON is ({error})") from None


def _take(found: Detections, piece: Piece, min_confidence: float) -> None:
    """Note one image. Raises DataError."""
    try:
        image = Image.model_validate(piece.value)
    except ValidationError as error:
        raise DataError(f"{found.where}: {_place(piece)}{_first_line(error)}") from None
    if image.detections is None and image.failure is None:
        raise DataError(f"{found.where}: {_place(piece)}: it has neither detections nor a failure")
    boxes = [
        (index, each.category, Box(*each.bbox))
        for index, each in enumerate(image.detections or ())
        if each.conf >= min_confidence
    ]
    is_video = any(key in piece.value for key in VIDEO_KEYS)
    found.failed += image.failure is not None
    found.videos += is_video
    is_photo = not is_video and image.failure is None
    found.entries.append(image.file, piece.start, piece.end, boxes if is_photo else [], is_photo)


def _place(piece: Piece) -> str:
    """`images[12] ('a/b.jpg')`."""
    file = piece.value.get("file") if isinstance(piece.value, dict) else None
    return f"{IMAGES}[{piece.index}]" + (f" ({shown(file)})" if isinstance(file, str) else "")


def _first_line(error: ValidationError) -> str:
    """`: detections[3].bbox[2]: what is wrong, got what`."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    where = f": {path}" if path else ""
    if first["type"] == "refused":
        return f"{where}: {first['msg']}"
    if first["type"] == "missing":
        return f"{where}: this key is required"
    return f"{where}: {first['msg']}, got {shown(first['input'])}"


def _require_head(found: Detections) -> None:
    """Raises DataError where the file is another kind of JSON, or of a version that nobody knows yet."""
    info, categories = found.head.get(INFO), found.head.get(CATEGORIES)
    wrong = ""
    if not isinstance(found.head.get(IMAGES), list):
        wrong = f"'{IMAGES}' is no list" if IMAGES in found.head else f"it has no '{IMAGES}'"
    elif not isinstance(info, dict) or "format_version" not in info:
        wrong = f"it has no '{INFO}' with a 'format_version'"
    elif not isinstance(categories, dict) or not all(isinstance(name, str) for name in categories.values()):
        wrong = f"its '{CATEGORIES}' must be an object of names"
    if wrong:
        raise DataError(
            f"{found.where}: {wrong}; a file in MegaDetector's batch format is needed "
            "(https://lila.science/megadetector-output-format)"
        )
    assert isinstance(info, dict)
    version = info["format_version"]
    if isinstance(version, bool) or VERSION.fullmatch(str(version)) is None:
        raise DataError(f"{found.where}: {INFO}.format_version: {shown(version)} is not 1.0 to 1.x")


def _require_each_once(found: Detections) -> None:
    files = found.entries.files
    if (twice := TextPlaces(files).first_repeated()) is not None:
        first, second = twice
        raise DataError(
            f"{found.where}: {shown(files[second])} is there twice, as {IMAGES}[{first}] and "
            f"{IMAGES}[{second}]"
        )


def _wanted(found: Detections, names: Sequence[str] | None) -> set[str]:
    """The categories whose boxes are named. Raises ConfigError."""
    known: dict[str, str] = found.head[CATEGORIES]
    if names is None:
        names = (ANIMAL,) if ANIMAL in {name.lower() for name in known.values()} else ()
    if not names:  # also those that it does not list: a box that is asked for is not passed over in silence
        return {*known, *found.entries.categories}
    wanted = set()
    for name in names:
        ids = {each for each, other in known.items() if other.lower() == name.lower()}
        if not ids:
            raise ConfigError(
                f"--detection-categories: {found.where} has no category {shown(name)}, but "
                f"{', '.join(map(shown, known.values()))}{nearest(name, known.values())}"
            )
        wanted |= ids
    return wanted
