"""Name photos: a stream of log-probabilities from files to one HDF5 file, on any number of ranks."""

import contextlib
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.errors import DataError, ImageError
from birdsonnx.images.folders import Photo
from birdsonnx.inference import hdf5
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.forward import forward
from birdsonnx.runtime.ranks import Ranks

CHUNKS_AHEAD = 8
"""Per stream. Small ones, of log-probabilities; to take fewer at a time costs more: of an int8 ResNet50 on
2 cores, writing takes 0.13 ms a photo with 2 and 0.065 with 8 (of 8.9)."""

SHOWN = 50
"""Up to this many photos are listed one by one; beyond it a summary is enough."""


@dataclass(frozen=True)
class Named:
    """One photo's outcome: log-probabilities, or why there are none."""

    photo: Photo
    log_probs: npt.NDArray[np.float32] | None
    refusal: str = ""


def name_photos(classifier: Classifier, photos: Sequence[Photo], ranks: Ranks) -> Iterator[Named]:
    """The outcome of every photo on rank 0 (in order with one rank); nothing on the others, which work."""

    def chunks() -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.float32], tuple[tuple[int, str], ...]]]:
        for chunk in forward(
            classifier.session,
            classifier.decoder,
            photos,
            ranks.share(len(photos)),
            classifier.streams,
            classifier.per_run,
            ahead=CHUNKS_AHEAD,
        ):
            yield chunk.indices, chunk.values, chunk.refused

    for indices, values, refused in ranks.merge(chunks()):
        for index, log_probs in zip(indices, values, strict=True):
            yield Named(photos[index], log_probs)
        for index, reason in refused:
            yield Named(photos[index], None, reason)


@dataclass
class Summary:
    """What a prediction run did."""

    photos: int = 0
    refused: list[str] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    """The first photos: name and top classes with probabilities."""
    counts: dict[str, int] = field(default_factory=dict)
    """Photos per named class."""
    seconds: float = 0.0
    output: Path | None = None
    csv: Path | None = None


def predict(
    classifier: Classifier,
    photos: Sequence[Photo],
    ranks: Ranks,
    output: Path | None,
    top_k: int = 1,
    csv_path: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Name all photos and keep the log-probabilities in `output`; the summary is complete on rank 0.

    Raises:
        ArtifactError: `output` or `csv_path` cannot be written.
        DataError: not one photo can be used; nothing is written then.
    """
    started = time.perf_counter()
    summary = Summary(output=output, csv=csv_path)
    names = classifier.class_names
    top_k = min(top_k, classifier.num_classes)
    with contextlib.ExitStack() as stack:
        writer = rows = None
        if ranks.is_first and output is not None:
            writer = stack.enter_context(hdf5.writing(output, classifier.metadata.classes, classifier.sha256))
        if ranks.is_first and csv_path is not None:
            rows = csv.writer(stack.enter_context(_replacing_text(csv_path)))
            rows.writerow(
                ["name", *(f"{what}_{k + 1}" for k in range(top_k) for what in ("class", "probability"))]
            )
        for named in name_photos(classifier, photos, ranks):
            advance(1)
            try:
                if writer is not None:
                    hdf5.require_storable(named.photo.name)
            except ImageError as error:
                named = Named(named.photo, None, str(error))
            if named.log_probs is None:
                summary.refused.append(named.refusal)
                continue
            summary.photos += 1
            if writer is not None:
                writer.add(named.photo.name, named.log_probs)
            top = [
                (names[index], float(np.exp(named.log_probs[index])))
                for index in _top(named.log_probs, top_k)
            ]
            summary.counts[top[0][0]] = summary.counts.get(top[0][0], 0) + 1
            if rows is not None:
                rows.writerow([named.photo.name, *(value for name, p in top for value in (name, f"{p:.6f}"))])
            if len(summary.shown) < SHOWN:
                summary.shown.append({"name": named.photo.name, "top": top})
        if summary.refused and not summary.photos:  # raised here, so that an older file stays
            raise DataError(
                f"none of the {len(summary.refused)} photos can be used:\n  " + "\n  ".join(summary.refused)
                if len(summary.refused) > 1
                else summary.refused[0]
            )
        if writer is not None:
            writer.refused = len(summary.refused)
    summary.shown.sort(key=lambda entry: str(entry["name"]))
    summary.seconds = time.perf_counter() - started
    return summary


def _top(log_probs: npt.NDArray[np.float32], count: int) -> list[int]:
    if count == 1:
        return [int(log_probs.argmax())]
    return [int(index) for index in np.argsort(-log_probs, kind="stable")[:count]]


@contextlib.contextmanager
def _replacing_text(path: Path) -> Iterator[TextIO]:
    with (
        artifacts.replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file
