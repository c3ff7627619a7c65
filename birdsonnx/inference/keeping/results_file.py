"""Predictions in MegaDetector's batch format, which tools for review read (Timelapse, AddaxAI).

The format: https://lila.science/megadetector-output-format. A detector's file comes back as it was, with our
classes at the boxes that were named. Of whole photos each has one box, which is all of it. What has no answer
has a `failure` instead of detections; an image that is not among the photos keeps its boxes. What is said
instead of a class (`unknown`, a genus) is a category of its own, after the classes, and comes first among the
classifications of its box.

The format says that a category may have any name, and its example counts from 0; ids are the class indices.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import birdsonnx
from birdsonnx import artifacts
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.errors import ArtifactError
from birdsonnx.images.crops import BoxRequest
from birdsonnx.images.detected_images import Entry
from birdsonnx.images.detections import Detections
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import CLASS, Judged

VERSION = "1.5"
"""Of a file of whole photos."""

ANIMAL = "1"
DETECTION_CATEGORIES = {ANIMAL: "animal", "2": "person", "3": "vehicle"}
"""MegaDetector's, by which tools filter."""

WHOLE = [0.0, 0.0, 1.0, 1.0]

DIGITS = 6
"""Of a probability, after the point."""

INFO, METADATA, OWN = "info", "classifier_metadata", "birdsonnx"
CLASSES, DESCRIPTIONS = "classification_categories", "classification_category_descriptions"
IMAGES, DETECTIONS, CLASSIFICATIONS = "images", "detections", "classifications"

OWN_HEAD = re.compile(rb'\s*{\s*"info": {.{0,100000}?"classifier_metadata": {"birdsonnx": ', re.DOTALL)
"""How a file begins that was written here."""
LONGEST_HEAD = 2**17


@dataclass(frozen=True)
class Origin:
    """What a file is made with, and of."""

    model: str
    """The file's name."""
    model_sha256: str
    class_names: Sequence[str]
    """In index order."""
    boxes: BoxRequest | None = None
    """How a detector's boxes were chosen and cut; None: whole photos."""
    detections: Detections | None = None
    """The detector's file."""

    def metadata(self) -> dict[str, Any]:
        """What of this is kept beside the classifier's name; nothing that differs from run to run."""
        own: dict[str, Any] = {"version": birdsonnx.__version__, "model_sha256": self.model_sha256}
        if self.boxes is not None:
            cutting = self.boxes.cutting
            own |= {"min_confidence": self.boxes.min_confidence}
            own |= {"crop_padding": cutting.padding, "crop_square": cutting.square}
        return {OWN: own}


@dataclass
class ResultsWriter:
    """What is known of each photo or box so far. It is written when all is known: photos come in the order
    in which ranks finish them, and a million of them take 0.2 GB."""

    origin: Origin
    _answers: dict[str, str] = field(default_factory=dict)
    """The classifications of a photo or box, as JSON, by its name."""
    _instead: dict[str, tuple[str, float]] = field(default_factory=dict)
    """What is said instead of a class, and how probable that is."""
    _refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = {name: index for index, name in reversed(list(enumerate(self.origin.class_names)))}

    def add(self, judged: Judged, /) -> None:
        """Note the likeliest classes of a photo or box."""
        verdict, name = judged.verdict, judged.photo.name
        top = [[str(self._ids[each]), round(probability, DIGITS)] for each, probability in verdict.top]
        self._answers[name] = json.dumps(top)
        if verdict.level != CLASS:
            self._instead[name] = (verdict.title, round(verdict.probability, DIGITS))

    def refuse(self, photo: Photo, reason: str, /) -> None:
        """Note why a photo or box has no answer."""
        self._refused[photo.name] = reason.removeprefix(f"{photo.path}: ")

    def write(self, file: TextIO) -> None:
        """Write all that is known. Raises OSError."""
        self._others = {
            said: str(len(self.origin.class_names) + place)
            for place, said in enumerate(sorted({said for said, _ in self._instead.values()}))
        }
        detections = self.origin.detections
        head = {} if detections is None else detections.head
        images = self._whole_photos() if detections is None else self._detected(detections)
        lines = [f" {json.dumps(key)}: {_text(value)}" for key, value in self._head(head).items()]
        file.write("{\n" + ",\n".join(lines) + f',\n "{IMAGES}": [')
        for index, image in enumerate(images):
            file.write(("," if index else "") + "\n  " + _text(image))
        file.write("\n ]\n}\n")

    def _head(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """All but the images."""
        if not head:
            head = {INFO: {"format_version": VERSION}, "detection_categories": DETECTION_CATEGORIES}
        info = {key: value for key, value in head[INFO].items() if key != METADATA}
        info |= {"classifier": _unicode(Path(self.origin.model).name), METADATA: self.origin.metadata()}
        names = {str(index): name for index, name in enumerate(self.origin.class_names)}
        own = {CLASSES: names | {each: said for said, each in self._others.items()}}
        replaced = (INFO, IMAGES, DESCRIPTIONS)
        return {INFO: info} | {key: value for key, value in head.items() if key not in replaced} | own

    def _classifications(self, name: str) -> list[list[Any]]:
        found: list[list[Any]] = json.loads(self._answers[name])
        instead = self._instead.get(name)
        return found if instead is None else [[self._others[instead[0]], instead[1]], *found]

    def _whole_photos(self) -> Iterator[dict[str, Any]]:
        for name in sorted(self._answers.keys() | self._refused.keys()):
            if name in self._refused:
                yield {"file": _unicode(name), "failure": _unicode(self._refused[name]), DETECTIONS: None}
            else:
                box = {"category": ANIMAL, "conf": 1.0, "bbox": WHOLE}
                yield {"file": name, DETECTIONS: [box | {CLASSIFICATIONS: self._classifications(name)}]}

    def _detected(self, detections: Detections) -> Iterator[dict[str, Any]]:
        for number, entry in enumerate(detections.entries):
            image, photo = detections.image(entry), detections.photo_name(number)
            found = None if photo is None else self._failure_of(entry, photo)
            if found is not None:
                image |= {"failure": _unicode(found), DETECTIONS: None}
            for index, detection in enumerate(image.get(DETECTIONS) or ()):
                detection["conf"] = float(detection["conf"])  # the validator takes no 1 for 1.0
                detection.pop(CLASSIFICATIONS, None)  # of another classifier, whose categories are gone
                if photo is not None and (name := f"{photo}/{index}") in self._answers:
                    detection[CLASSIFICATIONS] = self._classifications(name)
            yield image

    def _failure_of(self, entry: Entry, photo: str) -> str | None:
        """Why none of a photo's boxes has an answer, where some were to be named; else None. An image that
        is not among the photos keeps its boxes: another run may name them."""
        names = [f"{photo}/{index}" for index, _, _ in entry.boxes]
        if any(name in self._answers for name in names):
            return None
        return next((self._refused[name] for name in names if name in self._refused), None)


def require_own(path: Path, overwrite: bool) -> None:
    """Raises ArtifactError where another's file would be replaced, such as a detector's own."""
    if overwrite:
        return
    try:
        with open(path, "rb", opener=opener) as file:
            is_own = OWN_HEAD.match(file.read(LONGEST_HEAD)) is not None
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}") from None
    if not is_own:
        raise ArtifactError(
            f"{path} is there, and is no result of birdsonnx; give --results another name, or --overwrite"
        )


@contextlib.contextmanager
def writing(path: Path, origin: Origin) -> Iterator[ResultsWriter]:
    """A file that is written, and takes its place, once all photos are known.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with artifacts.completing(path) as temporary:
        with artifacts.naming(path):
            temporary.touch()  # what cannot be written is said before the first photo
        writer = ResultsWriter(origin)
        yield writer
        with artifacts.naming(path), temporary.open("w", encoding="utf-8", newline="\n") as file:
            writer.write(file)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _unicode(text: str) -> str:
    """A file name may be bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()
