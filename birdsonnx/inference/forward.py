"""Photos through a network: decoding and computing overlap, memory stays bounded, bad photos are reported."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.images.batches import decode
from birdsonnx.images.crops import Crop, decode_runs, pieces, whole_photos
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.folders import Photo
from birdsonnx.images.photo_file import Source
from birdsonnx.images.transforms import Views
from birdsonnx.inference.classifier import Classifier
from birdsonnx.model.metadata import INPUT, KNOWN
from birdsonnx.runtime.engine import Engine
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, in_streams, slices

CHUNKS_AHEAD = 8
"""Per stream, of log-probabilities, which are small; to take fewer at a time costs more: of an int8 ResNet50
on 2 cores, writing takes 0.13 ms a photo with 2 and 0.065 with 8 (of 8.9)."""

NOT_FINITE = "the network answers NaN or infinity for it; its weights are damaged, or too large"


@dataclass(frozen=True)
class Chunk:
    """What became of a few consecutive photos."""

    indices: tuple[int, ...]
    """Positions, in the list that was given, of the photos that have a row in `values`."""
    values: npt.NDArray[np.float32]
    """The network's output, float32 `[len(indices), …]`."""
    refused: tuple[tuple[int, str], ...]
    """Position and reason of each photo that could not be decoded, or has no finite values."""
    known: npt.NDArray[np.float32] | None = None
    """The network's output `known`, float32 `[len(indices)]`, where it has one."""


def forward(
    engine: Engine,
    decoder: Decoder,
    photos: Sequence[Photo],
    indices: range,
    streams: int,
    per_run: int = PHOTOS_PER_RUN,
    stop_computing_at_refusal: bool = False,
    ahead: int = 2,
    views: Views | None = None,
) -> Generator[Chunk]:
    """Run `photos[i]` for `i` in `indices` through the engine, in order: to its first output, and to `known`
    where it has that; with `views`, `photos`
    has each photo for each of its views.

    With `stop_computing_at_refusal`, photos after a bad one are only decoded: for callers that will use
    nothing of the pass once a photo was refused, but want the whole list. At most `ahead` chunks per stream
    wait to be taken.
    """
    width = engine.output_shapes[engine.outputs[0]][1:]
    seen_bad = False

    def run(piece: Sequence[int]) -> Chunk:
        nonlocal seen_bad
        pixels, good, refused = decode(decoder, photos, piece, views)
        seen_bad = seen_bad or bool(refused)
        if not good or (seen_bad and stop_computing_at_refusal):
            empty = np.empty((0, *(size if isinstance(size, int) else 0 for size in width)), np.float32)
            return Chunk((), empty, tuple(refused))
        chunk = computed(engine, pixels, good, refused, lambda index: photos[index].path)
        seen_bad = seen_bad or bool(chunk.refused)
        return chunk

    return in_streams(streams, run, slices(indices, per_run), ahead)


def forward_crops(
    engine: Engine,
    decoder: Decoder,
    crops: Sequence[Photo],
    ranks: Ranks,
    streams: int,
    per_run: int = PHOTOS_PER_RUN,
    ahead: int = 2,
) -> Generator[Chunk]:
    """The same for this rank's share of parts of photos, of which each photo's follow each other: it is
    decoded once, by one stream, however many they are."""

    def run(piece: Sequence[range]) -> Chunk:
        done = [
            computed(engine, pixels, good, refused, lambda index: crops[index].path)
            if good
            else Chunk((), np.empty((0, 0), np.float32), tuple(refused))
            for pixels, good, refused in decode_runs(decoder, crops, piece, per_run)
        ]
        return _joined(done)

    groups = whole_photos(crops)
    mine = (groups[index] for index in ranks.share(len(groups)))
    return in_streams(streams, run, pieces(mine, per_run), ahead)


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """One of several that follow each other."""
    with_values = [chunk for chunk in chunks if chunk.indices]
    refused = tuple(refusal for chunk in chunks for refusal in chunk.refused)
    if not with_values:
        return Chunk((), np.empty((0, 0), np.float32), refused)
    known = [chunk.known for chunk in with_values if chunk.known is not None]
    return Chunk(
        tuple(index for chunk in with_values for index in chunk.indices),
        np.concatenate([chunk.values for chunk in with_values]),
        refused,
        np.concatenate(known) if known else None,
    )


def computed(
    engine: Engine,
    pixels: Pixels,
    good: list[int],
    refused: list[tuple[int, str]],
    source_of: Callable[[int], Source],
) -> Chunk:
    """What becomes of photos that were decoded, at least one of them well (`images.batches`).

    Args:
        source_of: gives what a photo is called in messages, by its position.

    Raises:
        ModelError: the engine cannot compute it.
    """
    answers = answer(engine, pixels)
    values, known = answers[engine.outputs[0]], answers.get(KNOWN)
    if values.dtype == np.float16:  # a choice of the training, which says so itself
        return Chunk(tuple(good), values, tuple(refused))
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if known is not None:
        finite &= np.isfinite(known)
    if not finite.all():
        wrong = [(good[row], f"{source_of(good[row])}: {NOT_FINITE}") for row in np.flatnonzero(~finite)]
        refused = sorted([*refused, *wrong])
        good, values = [good[row] for row in np.flatnonzero(finite)], values[finite]
        known = None if known is None else known[finite]
    return Chunk(tuple(good), values, tuple(refused), known)


def answer(engine: Engine, pixels: Pixels) -> dict[str, npt.NDArray[np.float32]]:
    """The network's outputs for some photos by name, float32 `[photos, …]` each.

    Where an engine takes runs of one size only (OpenVINO), black photos fill up fewer.
    """
    size = engine.input_shapes[INPUT][0]
    if isinstance(size, int) and len(pixels) < size:
        filled = np.zeros((size, *pixels.shape[1:]), pixels.dtype)
        filled[: len(pixels)] = pixels
        return {name: rows[: len(pixels)] for name, rows in engine.run({INPUT: filled}).items()}
    return engine.run({INPUT: pixels})


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


def name_photos(classifier: Classifier, photos: Sequence[Photo], ranks: Ranks) -> Iterator[Named]:
    """The outcome of every photo on rank 0 (in order with one rank); nothing on the others, which work. They
    are whole photos, or all are parts of photos (`images.crops`)."""
    streams, per_run = classifier.streams, classifier.per_run
    of = (classifier.engine, classifier.decoder, photos)
    if photos and isinstance(photos[0], Crop):
        chunks = forward_crops(*of, ranks, streams, per_run, CHUNKS_AHEAD)
    else:
        chunks = forward(*of, ranks.share(len(photos)), streams, per_run, ahead=CHUNKS_AHEAD)
    for chunk in ranks.merge(chunks):
        known = [None] * len(chunk.indices) if chunk.known is None else chunk.known.tolist()
        for index, log_probs, score in zip(chunk.indices, chunk.values, known, strict=True):
            yield Named(photos[index], log_probs, known=score, index=index)
        for index, reason in chunk.refused:
            yield Named(photos[index], None, reason, index=index)


def counted(outcomes: Iterable[Named], advance: Callable[[int], None]) -> Iterator[Named]:
    """The same outcomes; `advance` is told of each as it comes."""
    for each in outcomes:
        advance(1)
        yield each
