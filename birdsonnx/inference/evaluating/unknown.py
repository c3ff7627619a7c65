"""How well the output `known` tells photos of the trained classes from photos of other things."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import DataError, ModelError
from birdsonnx.images.inputs import collect
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.naming import name_photos
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks


@dataclass(frozen=True)
class Unknown:
    """Figures over photos of the trained classes and photos that show none of them."""

    photos: int
    """Of none of the classes."""
    auroc: float | None
    """Share of pairs in which the photo of a class has the higher value; None where one side has no photo."""
    threshold: float
    """The model's own."""
    refused: float | None
    """Share of the photos of other things that lie below it."""
    kept: float | None
    """Share of the photos of the classes that do not."""

    def as_json(self) -> dict[str, Any]:
        return {
            "photos": self.photos,
            "auroc": self.auroc,
            "threshold": self.threshold,
            "unknown_refused": self.refused,
            "known_kept": self.kept,
        }

    def line(self) -> str:
        """The figures for people."""
        auroc, refused, kept = (
            "-" if value is None else f"{value:.4f}" for value in (self.auroc, self.refused, self.kept)
        )
        return (
            f"unknown: AUROC {auroc} against {self.photos:,} photos of other things; the threshold "
            f"{self.threshold:.4f} refuses {refused} of them and keeps {kept} of the photos of the classes"
        )


def photos_of_none(
    classifier: Classifier, folder: Path, shown: Sequence[Photo], audience: Audience
) -> Sequence[Photo]:
    """The photos below a folder, which show none of the classes.

    Args:
        classifier: that is to be measured.
        folder: whatever folders it holds.
        shown: the photos of the classes.

    Raises:
        ModelError: the model has no output `known`.
        DataError: no such folder, no photos in it, or one that is among those of the classes.
    """
    if classifier.metadata.known is None:
        raise ModelError(
            f"{classifier.where}: it has no output 'known', which --unknown measures; give it one: birdsonnx "
            "calibrate MODEL --validate data/valid --known data/train"
        )
    if not folder.is_dir():
        raise DataError(f"--unknown {folder}: there is no such folder")
    found = collect([str(folder)], say=audience.say)
    both = {photo.path.resolve() for photo in shown}.intersection(photo.path.resolve() for photo in found)
    if both:
        raise DataError(
            f"--unknown {folder}: {len(both)} of its photos are photos of the classes, such as {min(both)}; "
            "give a folder of other things"
        )
    return found


def measure(
    classifier: Classifier,
    photos: Sequence[Photo],
    known: Sequence[float],
    ranks: Ranks,
    audience: Audience,
) -> tuple[Unknown, list[str]]:
    """A pass over photos of other things; every rank calls this. On rank 0 the figures, and why photos that
    could not be used were not.

    Args:
        photos: by `photos_of_none`.
        known: the output for each photo of the classes.
    """
    values, refused = array("d"), []
    with audience.progress("photos of other things", len(photos)) as advance:
        for named in name_photos(classifier, photos, ranks):
            advance(1)
            if named.known is None:
                refused.append((named.photo.name, named.refusal))
            else:
                values.append(named.known)
    threshold = float((classifier.metadata.known or {})["threshold"])
    inside, outside = np.array(known, np.float64), np.array(values, np.float64)
    figures = Unknown(
        len(outside),
        auroc(inside, outside) if len(inside) and len(outside) else None,
        threshold,
        float((outside < threshold).mean()) if len(outside) else None,
        float((inside >= threshold).mean()) if len(inside) else None,
    )
    return figures, [reason for _, reason in sorted(refused)]


def auroc(known: npt.NDArray[np.float64], unknown: npt.NDArray[np.float64]) -> float:
    """The share of pairs of a known and an unknown photo in which the known one has the higher value, ties
    counted half (Hanley and McNeil 1982): 1 where it tells all of them apart, 0.5 where it is worth nothing.

    Args:
        known: one value or more.
        unknown: one value or more.
    """
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, "left")
    upto = np.searchsorted(ordered, unknown, "right")
    return float(((len(known) - upto) + (upto - below) / 2).mean() / len(known))
