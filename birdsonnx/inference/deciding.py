"""What decides the answers of a prediction: where any of it is another, what a killed run has computed is of
no use. What a photo's file holds decides of that photo alone (`images.photo_status`).

What is said of a photo (species, thresholds, how many classes) does not belong to it, nor do the numbers of
ranks and streams: they change no bit of what the network answers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import PIL
import simplejpeg

from birdsonnx import __version__
from birdsonnx.images.crop_list import CropList
from birdsonnx.images.crops import Crop
from birdsonnx.images.decoding import PIXELS_VERSION
from birdsonnx.images.photo_list import Photo, names_of, paths_of
from birdsonnx.inference.classifier import Classifier
from birdsonnx.runtime import isa

MODEL, ENGINE, PIXELS, PHOTOS, VERSIONS, CPU = "model", "engine", "pixels", "photos", "versions", "cpu"

WORDS = {
    MODEL: "the model is another",
    PHOTOS: "the list of photos is another",
    PIXELS: "photos become pixels in another way",
    ENGINE: "it is computed in another way",
    VERSIONS: "the program or a library is of another version",
    CPU: "the processor is of another kind",
}


@dataclass(frozen=True)
class Facts:
    """What decides the answers, by name."""

    values: Mapping[str, str]

    def line(self) -> bytes:
        """One line of ASCII."""
        return json.dumps({"birdsonnx_progress": 1, **self.values}, sort_keys=True).encode() + b"\n"

    def unlike(self, line: bytes) -> str:
        """Where another line differs, in words."""
        try:
            other = json.loads(line)
        except (ValueError, RecursionError):
            return "it is damaged"
        if not isinstance(other, dict):
            return "it is damaged"
        changed = [words for name, words in WORDS.items() if other.get(name) != self.values[name]]
        return ", and ".join(changed) or "it is damaged"


def of_prediction(classifier: Classifier, photos: Sequence[Photo]) -> Facts:
    """What decides what a model answers about these photos, as long as none of their files changes."""
    versions = (__version__, PIXELS_VERSION, np.__version__, PIL.__version__, simplejpeg.__version__)
    return Facts(
        {
            MODEL: classifier.sha256,
            ENGINE: f"{classifier.engine.title}, runs of {classifier.per_run}, {classifier.threads} threads",
            PIXELS: repr(classifier.decoder),
            PHOTOS: _list_of(photos),
            VERSIONS: repr(versions),
            CPU: " ".join((isa.cpuinfo("vendor_id"), *isa.extensions())),
        }
    )


def _list_of(photos: Sequence[Photo]) -> str:
    """A hash of their names, places and boxes."""
    digest = hashlib.sha256()
    crops = photos if isinstance(photos, CropList) else repeat(None)
    for name, path, crop in zip(names_of(photos), paths_of(photos), crops):  # noqa: B905 - without end
        part = repr((crop.box, crop.cutting)) if isinstance(crop, Crop) else ""
        digest.update(f"{name}\0{path}\0{part}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()
