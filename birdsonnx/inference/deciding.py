"""What decides the answers of a prediction: where any of it is another, what a killed run has computed is of
no use.

What is said of a photo (species, thresholds, how many classes) does not belong to it, nor do the numbers of
ranks and streams: they change no bit of what the network answers.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import PIL
import simplejpeg

from birdsonnx import __version__
from birdsonnx.images.crops import Crop
from birdsonnx.images.decoding import PIXELS_VERSION
from birdsonnx.images.folders import Photo
from birdsonnx.inference.classifier import Classifier
from birdsonnx.runtime import isa

MODEL, ENGINE, PIXELS, PHOTOS, VERSIONS, CPU = "model", "engine", "pixels", "photos", "versions", "cpu"

WORDS = {
    MODEL: "the model is another",
    PHOTOS: "the photos are others, or have changed",
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


def of_prediction(classifier: Classifier, photos: Iterable[Photo]) -> Facts:
    """What decides what a model answers about photos; those are asked for their size and times."""
    versions = (__version__, PIXELS_VERSION, np.__version__, PIL.__version__, simplejpeg.__version__)
    return Facts(
        {
            MODEL: classifier.sha256,
            ENGINE: f"{classifier.engine.title}, runs of {classifier.per_run}, {classifier.threads} threads",
            PIXELS: repr(classifier.decoder),
            PHOTOS: _of_photos(photos),
            VERSIONS: repr(versions),
            CPU: " ".join((isa.cpuinfo("vendor_id"), *isa.extensions())),
        }
    )


def _of_photos(photos: Iterable[Photo]) -> str:
    """A hash of their names, places, boxes, sizes and times. It takes 6 us a photo."""
    digest = hashlib.sha256()
    for photo in photos:
        # Not the device: the same network disk has another number on another host.
        path = os.fspath(photo.path)
        try:
            now = os.stat(path)  # noqa: PTH116 - twice as fast as Path's
            facts = f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_ino}"
        except OSError:
            facts = "-"
        part = repr((photo.box, photo.cutting)) if isinstance(photo, Crop) else ""
        digest.update(f"{photo.name}\0{path}\0{facts}\0{part}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()
