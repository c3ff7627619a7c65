"""What is said of a photo, by what the network answered about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from birdsonnx.images.folders import Photo
from birdsonnx.inference.classifier import Classifier

Top = Sequence[tuple[str, float]]
"""The likeliest classes of a photo and their probabilities, the likeliest first."""

LogProbs = npt.NDArray[np.float32]

CLASS, UNKNOWN = "class", "unknown"
"""Levels of what is said: one of the classes; none of them."""


@dataclass(frozen=True)
class Verdict:
    """What is said of one photo."""

    said: str
    """A class, or what is said instead of one (`level`)."""
    probability: float
    """Of what is said, 0 to 1; where that is no class, of the likeliest class."""
    top: Top
    """The likeliest classes with their probabilities."""
    level: str = CLASS
    """What kind of thing is said: a class, or `unknown`."""
    known: float | None = None
    """How much the photo is like those of the trained classes, where the network says so."""

    def as_json(self) -> dict[str, Any]:
        """Of a photo that was named by its class, only the likeliest classes; what else there is to say only
        where there is something."""
        content: dict[str, Any] = {"top": self.top}
        if self.level != CLASS:
            content |= {"said": self.said, "level": self.level}
        if self.known is not None:
            content["known"] = self.known
        return content


@dataclass(frozen=True)
class Judge:
    """What is to be said of photos.

    Args:
        class_names: in index order.
        top_k: classes to list for each photo.
        least_known: what the score `known` must reach for a photo to be named; None: it is not looked at.
    """

    class_names: Sequence[str]
    top_k: int = 1
    least_known: float | None = None

    @classmethod
    def of(cls, classifier: Classifier, top_k: int = 1) -> "Judge":
        """One that goes by what the model brings."""
        known = classifier.metadata.known
        least = None if known is None else float(known["threshold"])
        return cls(classifier.class_names, min(top_k, classifier.num_classes), least)

    def verdict(self, log_probs: LogProbs, known: float | None = None) -> Verdict:
        """What is said of a photo by its log-probabilities, float32 `(classes,)`, and its score `known`."""
        top = top_classes(log_probs, self.class_names, self.top_k)
        said, probability = top[0]
        if self.least_known is not None and known is not None and known < self.least_known:
            return Verdict(UNKNOWN, probability, top, UNKNOWN, known)
        return Verdict(said, probability, top, known=known)


@dataclass(frozen=True)
class Judged:
    """A photo that has an answer."""

    photo: Photo
    log_probs: LogProbs
    """What the network answered, float32 `(classes,)`."""
    verdict: Verdict


class Keeper(Protocol):
    """What takes note of each photo, on rank 0: a file that is written, or the summary."""

    def add(self, judged: Judged, /) -> None:
        """A photo that has an answer. Raises ArtifactError where it cannot be written."""

    def refuse(self, photo: Photo, reason: str, /) -> None:
        """A photo that could not be used. Raises ArtifactError."""


def top_classes(log_probs: LogProbs, names: Sequence[str], count: int) -> Top:
    """The `count` likeliest of the classes `names`, by their log-probabilities, float32 `(classes,)`."""
    # Of 400 classes a sort takes 11 us, and the maximum 0.4.
    best = [log_probs.argmax()] if count == 1 else np.argsort(-log_probs, kind="stable")[:count]
    return [(names[int(index)], float(np.exp(log_probs[index]))) for index in best]
