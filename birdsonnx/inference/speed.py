"""How fast `predict` names photo files: decoding, the network, the HDF5 file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from birdsonnx.artifacts.temporary import scratch_folder
from birdsonnx.config.computing import EngineChoice, EngineName
from birdsonnx.errors import EngineError
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference import engines
from birdsonnx.inference.classifier import Classifier, open_classifier
from birdsonnx.inference.prediction import Files, record
from birdsonnx.runtime.ranks import Ranks

MANY_PHOTOS = 10**6
"""What is measured is what `predict` does with so many that starting no longer counts."""


@dataclass(frozen=True)
class Speed:
    """Of a model on this machine, from photo files."""

    images: int
    seconds: float
    streams: int
    engine: str
    """Its name and version."""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


def of_model(
    model: Path, photos: Sequence[Photo], seconds: float, threads: int, engine: EngineChoice, grayscale: bool
) -> Speed:
    """Measure one model in this process for about so many seconds, on `photos`, over and over.

    Raises:
        BirdsonnxError: a model or photos that cannot be used.
    """
    until = perf_counter() + seconds

    def opened(name: EngineName) -> Classifier:
        return open_classifier(model, str(model), MANY_PHOTOS, threads, grayscale=grayscale, engine=name)

    try:
        classifier = opened(engines.choose(engine, False, MANY_PHOTOS, lambda: False))
    except EngineError:
        classifier = opened("onnxruntime")
    with scratch_folder() as folder:
        images, spent = from_files(classifier, photos, folder, until)
    return Speed(images, spent, classifier.streams, classifier.engine.title)


def from_files(
    classifier: Classifier, photos: Sequence[Photo], folder: Path, until: float
) -> tuple[int, float]:
    """Predict a few photos as warm-up, then in one go as many as will be done when `perf_counter()` comes to
    `until`: how many these were, and their seconds. `folder` takes the predictions."""

    def predict(count: int) -> float:
        cycled = [Photo(photos[number % len(photos)].path, f"{number:08}") for number in range(count)]
        return record(classifier, cycled, Ranks(), Files(folder / "output_1.h5")).seconds

    few = 2 * classifier.streams * classifier.per_run
    seconds = predict(few)
    images = max(few, int(few / seconds * (until - perf_counter())))
    return images, predict(images)
