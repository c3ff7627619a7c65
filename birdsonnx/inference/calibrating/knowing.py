"""Photos of none of the classes: the output `known`, fitted to training and validation photos."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.config.computing import EngineChoice
from birdsonnx.errors import DataError
from birdsonnx.images.folders import LabelledFolder, fitted, read_class_folders
from birdsonnx.inference import requests
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.naming import name_photos
from birdsonnx.inference.opening import ChosenModel, open_model
from birdsonnx.model import model_file
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.known_output import Weights, answering_directions, with_known
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

SCORE = "likeness of features and largest probability"
WITHOUT_FEATURES = "largest probability"
LIKENESS_COUNTS = 2.0
"""How much more a standard deviation of the likeness counts than one of the largest log-probability. From 1
to 4 the AUROC of species that were held out stays within 0.01."""
LEAST_SPREAD = {"probability": 0.1, "likeness": 1e-3}
"""Standard deviations that are taken at least: where all validation photos are named with 0.9999, one with
0.99 is nothing strange."""
FEW = 40
"""Validation photos below which a share of 0.95 is hardly more than a guess."""
STEPS = 2**32
"""Directions are added up as multiples of its inverse: whole numbers have the same sum in any order."""


@dataclass(frozen=True)
class Network:
    """The model that gets the output, and what computes it."""

    content: bytes
    where: str
    """Its file's name."""
    threads: int | None = None
    """Per rank; None: its share of the cores."""
    engine: EngineChoice = "auto"

    @cached_property
    def parsed(self) -> BirdModel:
        """Nothing changes it, so it is parsed once. Raises ModelError."""
        return model_file.parse(self.content, self.where)


@dataclass(frozen=True)
class Means:
    """What the training photos gave."""

    directions: npt.NDArray[np.float32] | None
    """Mean direction of each class's features at length 1, float32 `[classes, features]`; None: the network
    has no last linear layer."""
    photos: int
    refused: list[str]
    """Why each photo that could not be used was not."""


@dataclass(frozen=True)
class Known:
    """What the validation photos gave."""

    means: Means
    weights: Weights
    threshold: float
    """Photos with less show none of the classes."""
    kept: float
    """Share of the validation photos that have as much or more."""
    photos: int

    def as_json(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "threshold": self.threshold,
            "kept": self.kept,
            "photos": self.photos,
            "training_photos": self.means.photos,
        }

    @property
    def score(self) -> str:
        """What it is made of, in words."""
        return SCORE if self.means.directions is not None else WITHOUT_FEATURES

    def added_to(self, model: BirdModel) -> BirdModel:
        """The model with the output `known`. Raises ModelError."""
        return with_known(model, self.means.directions, self.weights, self.as_json())

    def notes(self) -> list[str]:
        """What is to be said of the network and the photos that it was fitted to."""
        notes = []
        if self.means.directions is None:
            notes.append("the network has no last linear layer: 'known' is its largest log-probability alone")
        if self.photos < FEW:
            notes.append(
                f"{self.photos} photos are few for the threshold of 'known'; {FEW} or more tell more"
            )
        return notes


def means_of(
    network: Network,
    folder: Path,
    tag: str | None,
    validation: LabelledFolder,
    ranks: Ranks,
    audience: Audience,
) -> Means:
    """A pass over training photos to the network's features; every rank calls this.

    Args:
        network: a float32 or int8 one.
        folder: class folders with photos of every class.
        tag: name of the folders in it that hold the class folders; None: it does.
        validation: photos that are to say what the output is worth.

    Raises:
        BirdsonnxError: a model or folder that cannot be used, or photos that are in both folders.
    """
    labelled = ranks.first(lambda: _training_photos(network, folder, tag, validation, audience))
    content = ranks.first(lambda: _directions(network))
    if content is None:
        return Means(None, 0, [])
    request = requests.Request(
        [str(folder)], Path(network.where), threads=network.threads, engine=network.engine
    )
    chosen = ChosenModel(content, network.where)
    with audience.progress("opening the model"):
        classifier = open_model(chosen, len(labelled.photos), request, ranks, audience)
    return _means(classifier, labelled, ranks, audience)


def _training_photos(
    network: Network, folder: Path, tag: str | None, validation: LabelledFolder, audience: Audience
) -> LabelledFolder:
    """With the model's class indices. Raises DataError."""
    model = network.parsed
    found = read_class_folders(folder, tag, say=audience.say)
    fitting, validating = ({photo.path.resolve() for photo in each.photos} for each in (found, validation))
    both = fitting & validating
    if both:
        raise DataError(
            f"--known {folder}: {len(both)} of its photos are photos of --validate, such as {min(both)}; "
            "they would come out better than other photos; give the training photos to --known"
        )
    return fitted(found, model.metadata.classes, model.num_classes, network.where)


def _directions(network: Network) -> bytes | None:
    model = answering_directions(network.parsed)
    return None if model is None else model.serialized()


def _means(classifier: Classifier, folder: LabelledFolder, ranks: Ranks, audience: Audience) -> Means:
    classes = len(folder.classes)
    sums = np.zeros((classes * ranks.is_first, classifier.num_classes), np.int64)
    counts = np.zeros(classes, np.int64)
    reasons: dict[int, str] = {}
    with audience.progress("features of training photos", len(folder.photos)) as advance:
        for named in name_photos(classifier, folder.photos, ranks):
            advance(1)
            if named.log_probs is None or named.photo.label is None:
                reasons[named.index] = named.refusal
            else:
                sums[named.photo.label] += np.rint(named.log_probs.astype(np.float64) * STEPS).astype(
                    np.int64
                )
                counts[named.photo.label] += 1
    refused = [reasons[place] for place in sorted(reasons)]

    def found() -> Means:
        if not counts.all():
            lacking = [folder.classes[label] for label in np.flatnonzero(counts == 0)]
            raise DataError(
                f"{folder.where}: not one photo of {len(lacking)} of the {classes} classes can be used, such "
                f"as {lacking[0]!r}; photos of it would be called unknown"
            )
        means = sums / STEPS / counts[:, None]
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        directions = (means / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return Means(directions, int(counts.sum()), refused)

    return ranks.first(found)


def answering_likeness(network: Network, means: Means) -> bytes:
    """The model with the likeness alone as `known`, for the pass over the validation photos."""
    weights = Weights(0.0, 1.0, 0.0)
    return Known(means, weights, 0.0, 0.0, 0).added_to(network.parsed).serialized()


def fit(
    likeness: npt.NDArray[np.float32] | None,
    log_probs: npt.NDArray[np.float32],
    means: Means,
    keep: float,
) -> Known:
    """Weights and threshold by photos of the trained classes that the network was not trained on.

    Args:
        likeness: of each photo with the most alike class, float32 `[photos]`.
        log_probs: float32 `[photos, classes]`, of one photo or more.
        means: without directions the likeness counts nothing.
        keep: share of the photos that the threshold keeps at least, above 0.
    """
    largest = log_probs.max(axis=1).astype(np.float64)
    probability = 1 / max(float(largest.std()), LEAST_SPREAD["probability"])
    known, offset, weight = probability * largest, -probability * float(largest.mean()), 0.0
    if likeness is not None and means.directions is not None:
        alike = likeness.astype(np.float64)
        weight = LIKENESS_COUNTS / max(float(alike.std()), LEAST_SPREAD["likeness"])
        known, offset = known + weight * alike, offset - weight * float(alike.mean())
    known += offset
    threshold = threshold_of(known, keep)
    kept = float((known >= threshold).mean())
    return Known(means, Weights(probability, weight, offset), threshold, kept, len(known))


def threshold_of(known: npt.NDArray[Any], keep: float) -> float:
    """The threshold that at least a share `keep` of these values reach, and as few more as possible. It lies
    between two values, so that the rounding of another engine decides nothing."""
    values = np.unique(known)
    reached = np.searchsorted(np.sort(known), values)  # how many lie below each
    lowest = int(np.flatnonzero(reached <= (1 - keep) * len(known) + 1e-9)[-1])
    below = values[lowest - 1] if lowest else values[0] - 1e-3 * max(1.0, abs(float(values[0])))
    return float((values[lowest] + below) / 2)
