"""What is said of a photo, by what the network answered about it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.judging.name_files import alike
from birdsonnx.inference.judging.species import Species
from birdsonnx.inference.judging.taxonomy import Taxonomy
from birdsonnx.inference.judging.thresholds import Thresholds

Top = Sequence[tuple[str, float]]
"""The likeliest classes of a photo and their probabilities, the likeliest first."""

LogProbs = npt.NDArray[np.float32]

CLASS, UNKNOWN, UNSURE = "class", "unknown", "unsure"
"""Levels of what is said: one of the classes; none of them; nothing, since no answer is sure enough. Others
are those of a taxonomy, such as genus."""

NO_CLASS = " (no class)"
"""Behind what is said instead of a class, where a class has that name."""


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
    """What kind of thing is said: a class, a level of the taxonomy, `unknown` or `unsure`."""
    known: float | None = None
    """How much the photo is like those of the trained classes, where the network says so."""
    instead_of: tuple[str, float] | None = None
    """The network's likeliest class and its probability, where that species cannot occur."""
    label: str = ""
    """What the photo is counted and sorted under, where that is not `said`."""

    @property
    def title(self) -> str:
        """What the photo is counted and sorted under: `genus Turdus`."""
        return self.label or self.said

    def as_json(self) -> dict[str, Any]:
        """Of a photo that was named by its class, only the likeliest classes; what else there is to say only
        where there is something."""
        content: dict[str, Any] = {"top": self.top}
        if self.level != CLASS:
            content |= {"said": self.said, "level": self.level, "probability": self.probability}
        if self.instead_of is not None:
            content["instead_of"] = self.instead_of
        if self.known is not None:
            content["known"] = self.known
        return content

    @property
    def cells(self) -> dict[str, str]:
        """By the names of `Judge.columns`."""
        return {
            "said": self.said,
            "level": self.level,
            "said_probability": f"{self.probability:.6f}",
            "instead_of": "" if self.instead_of is None else self.instead_of[0],
            "known": "" if self.known is None else f"{self.known:.6f}",
        }


@dataclass(frozen=True)
class Judge:
    """What is to be said of photos.

    A photo is `unknown` by its score alone. Else the species that cannot occur lose their probability, and
    the likeliest class is said where it reaches its threshold; else the most specific taxon that reaches
    one; else it is `unsure`.

    Args:
        class_names: in index order.
        top_k: classes to list for each photo.
        least_known: what the score `known` must reach for a photo to be named; None: it is not looked at.
        species: those that can occur; None: all.
        thresholds: None: the likeliest class is said, however unlikely it is.
        taxonomy: what else can be said where that is not sure enough.
    """

    class_names: Sequence[str]
    top_k: int = 1
    least_known: float | None = None
    species: Species | None = None
    thresholds: Thresholds | None = None
    taxonomy: Taxonomy | None = None

    @classmethod
    def of(cls, classifier: Classifier, top_k: int = 1) -> "Judge":
        """One that goes by what the model brings."""
        found = classifier.metadata
        least = None if found.known is None else float(found.known["threshold"])
        limits = None if found.thresholds is None else Thresholds.of_model(found.thresholds)
        return cls(classifier.class_names, min(top_k, classifier.num_classes), least, thresholds=limits)

    def verdict(self, log_probs: LogProbs, known: float | None = None, top_k: int | None = None) -> Verdict:
        """What is said of a photo.

        Args:
            log_probs: float32 `(classes,)`.
            known: its score of that name.
            top_k: classes to list, in place of the judge's.
        """
        left = log_probs if self.species is None else self.species.conditional(log_probs)
        likeliest = int(left.argmax())
        top = top_classes(left, self.class_names, top_k or self.top_k)
        name, probability = top[0]
        if self.least_known is not None and known is not None and known < self.least_known:
            return Verdict(UNKNOWN, probability, top, UNKNOWN, known, label=self._labels[UNKNOWN])
        before = None
        if self.species is not None and (first := int(log_probs.argmax())) != likeliest:
            before = self.class_names[first], probability_of(log_probs[first])
        if self.thresholds is None or probability >= self.thresholds.of_class[likeliest]:
            return Verdict(name, probability, top, CLASS, known, before)
        if self.taxonomy is not None:
            taxon = self.taxonomy.surest(left, self.thresholds.of_taxa)
            if taxon is not None:
                level, name, sum_of_classes = taxon
                label = self._labels[f"{level} {name}"]
                return Verdict(name, sum_of_classes, top, level, known, before, label)
        return Verdict(UNSURE, probability, top, UNSURE, known, before, self._labels[UNSURE])

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table: what there is to say of each photo beside its likeliest classes (`Verdict.cells`)."""
        if self.species is None and self.thresholds is None and self.least_known is None:
            return ()
        instead = ("instead_of",) if self.species is not None else ()
        known = ("known",) if self.least_known is not None else ()
        return ("said", "level", "said_probability", *instead, *known)

    @property
    def labels(self) -> tuple[str, ...]:
        """All that can be said of a photo (`Verdict.title`)."""
        names = self.class_names
        if self.species is not None:
            names = [names[index] for index in self.species.indices]
        return (*names, *self._labels.values())

    @cached_property
    def _labels(self) -> dict[str, str]:
        """What is said instead of a class, and how it is told from classes of the same name."""
        words = []
        if self.least_known is not None:
            words.append(UNKNOWN)
        if self.thresholds is not None:
            words.append(UNSURE)
            levels = () if self.taxonomy is None else self.taxonomy.levels
            words += [f"{level.name} {taxon}" for level in levels for taxon in level.taxa]
        taken = {alike(name) for name in self.class_names}
        labels = {}
        for word in words:
            label = word
            while alike(label) in taken:
                label += NO_CLASS
            labels[word] = label
        return labels


@dataclass(frozen=True)
class Judged:
    """A photo that has an answer."""

    photo: Photo
    log_probs: LogProbs
    """What the network answered, float32 `(classes,)`."""
    verdict: Verdict
    known: float | None = None
    """What the network itself says of how much it is like those of the trained classes."""
    sequence: int | None = None
    """The number of the sequence whose photos share the verdict, from 1; None: each photo has its own."""


class Keeper(Protocol):
    """What takes note of each photo, on rank 0: a file that is written, or the summary."""

    def add(self, judged: Judged, /) -> None:
        """A photo that has an answer. Raises ArtifactError where it cannot be written."""

    def refuse(self, photo: Photo, reason: str, /) -> None:
        """A photo that could not be used. Raises ArtifactError."""


def top_classes(log_probs: npt.NDArray[np.floating], names: Sequence[str], count: int) -> Top:
    """The `count` likeliest of the classes `names`, by their log-probabilities `(classes,)`."""
    # Of 400 classes a sort takes 11 us, and the maximum 0.4.
    best = [log_probs.argmax()] if count == 1 else np.argsort(-log_probs, kind="stable")[:count]
    return [(names[int(index)], probability_of(log_probs[index])) for index in best]


def probability_of(log_prob: float | np.floating) -> float:
    """Of one class: the exponential in float64, at most 1, above which rounding may leave it a little."""
    return min(1.0, math.exp(log_prob))
