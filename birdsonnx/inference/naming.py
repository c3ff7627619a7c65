"""What becomes of each photo, in the order of the list, on any number of ranks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.images.crop_list import CropList
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.forward import Chunk, run_of_crops, run_of_photos
from birdsonnx.inference.keeping.journal import Journal
from birdsonnx.inference.units import Pieces, Units
from birdsonnx.runtime.audience import Advance
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks

UNITS_AT_ONCE = 64
"""Given to who writes them before the other ranks are answered again: 0.25 s of writing HDF5 and CSV."""


@dataclass(frozen=True)
class Named:
    """One photo's outcome: log-probabilities, or why there are none."""

    photo: Photo
    log_probs: npt.NDArray[np.float32] | None
    refusal: str = ""
    known: float | None = None
    """How much it is like the photos of the trained classes, where the network says so."""
    index: int = -1
    """Its position in the list of photos."""


def name_photos(
    classifier: Classifier,
    photos: Sequence[Photo],
    ranks: Ranks,
    journal: Journal | None = None,
    phases: Phases | None = None,
) -> Iterator[Named]:
    """The outcome of every photo on rank 0, in order; nothing on the others, which work. They are whole
    photos, or all are parts of photos (`images.crops`).

    With a `journal`, on rank 0, what it holds is not computed again, and what is computed is noted in it.
    `phases` takes the seconds of this rank.
    """
    pieces = Pieces(photos, classifier.per_run)
    if isinstance(photos, CropList):
        run = run_of_crops(classifier.engine, classifier.decoder, photos, classifier.per_run)
    else:
        run = run_of_photos(classifier.engine, classifier.decoder, photos)
    units = Units(
        pieces,
        run,
        classifier.streams,
        classifier.num_classes,
        ranks,
        {} if journal is None else journal.units,
        (lambda _unit, _chunk: None) if journal is None else journal.add,
        phases,
    )
    given = 0

    def ready() -> Iterator[Named]:
        """What can be given now; of what a killed run has done only so much that no rank waits for long."""
        nonlocal given
        for _ in range(UNITS_AT_ONCE):
            done = units.from_done(given)
            if done is None and journal is not None:
                done = journal.read(given)
            if done is None:
                return
            unit, chunk = done
            given = unit.stop
            yield from _each(chunk, photos)

    with closing(ranks.on_demand(units)) as steps:
        for _ in steps:
            yield from ready()
    while ranks.is_first and given < len(pieces):
        yield from ready()


def _each(chunk: Chunk, photos: Sequence[Photo]) -> Iterator[Named]:
    """The outcomes of a unit, in order."""
    known = [None] * len(chunk.indices) if chunk.known is None else chunk.known.tolist()
    refused = dict(chunk.refused)
    rows = zip(chunk.indices, chunk.values, known, strict=True)
    for index in sorted([*chunk.indices, *refused]):
        if index in refused:
            yield Named(photos[index], None, refused[index], index=index)
        else:
            _, log_probs, score = next(rows)
            yield Named(photos[index], log_probs, known=score, index=index)


def counted(outcomes: Iterable[Named], advance: Advance) -> Iterator[Named]:
    """The same outcomes; `advance` is told of each as it comes."""
    for each in outcomes:
        advance(1)
        yield each
