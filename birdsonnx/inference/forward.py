"""Photos through a network: decoding and computing overlap, memory stays bounded, bad photos are reported."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from birdsonnx.images.batches import decode
from birdsonnx.images.crops import decode_runs
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.photo_file import Source
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.transforms import Views
from birdsonnx.model.metadata import INPUT, KNOWN
from birdsonnx.runtime.engine import Engine
from birdsonnx.runtime.sessions import in_streams

Unit = TypeVar("Unit")

NOT_FINITE = "the network answers NaN or infinity for it; its weights are damaged, or too large"

NO_VALUES = np.empty((0, 0), np.float32)


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
    decode_s: float = field(default=0.0, compare=False)
    """What the stream spent on decoding them."""
    compute_s: float = field(default=0.0, compare=False)
    """What it spent on the network."""


Run = Callable[[Any], Chunk]
"""From a piece, the positions that a stream works through at a time, to what became of its photos."""


def run_of_photos(
    engine: Engine,
    decoder: Decoder,
    photos: Sequence[Photo],
    views: Views | None = None,
    stop_computing_at_refusal: bool = False,
) -> Run:
    """A piece is positions of photos; with `views`, `photos` has each photo for each of its views.

    With `stop_computing_at_refusal`, photos after a bad one are only decoded: for callers that will use
    nothing of the pass once a photo was refused, but want the whole list.
    """
    seen_bad = False

    def run(piece: Sequence[int]) -> Chunk:
        nonlocal seen_bad
        started = time.perf_counter()
        pixels, good, refused = decode(decoder, photos, piece, views)
        decode_s = time.perf_counter() - started
        seen_bad = seen_bad or bool(refused)
        if not good or (seen_bad and stop_computing_at_refusal):
            return Chunk((), NO_VALUES, tuple(refused), decode_s=decode_s)
        chunk = computed(engine, pixels, good, refused, lambda index: photos[index].path)
        seen_bad = seen_bad or bool(chunk.refused)
        return replace(chunk, decode_s=decode_s)

    return run


def run_of_crops(engine: Engine, decoder: Decoder, crops: Sequence[Photo], per_run: int) -> Run:
    """A piece is ranges of positions, each of all crops of a photo (`crops.pieces`): it is decoded once, by
    one stream, however many they are."""

    def run(piece: Sequence[range]) -> Chunk:
        started = time.perf_counter()
        chunk = joined(
            [
                computed(engine, pixels, good, refused, lambda index: crops[index].path)
                if good
                else Chunk((), NO_VALUES, tuple(refused))
                for pixels, good, refused in decode_runs(decoder, crops, piece, per_run)
            ]
        )
        return replace(chunk, decode_s=time.perf_counter() - started - chunk.compute_s)

    return run


def in_units(
    streams: int,
    run: Run,
    units: Iterable[Unit],
    pieces_of: Callable[[Unit], Iterable[Any]],
    ahead: int,
    meanwhile: Callable[[], None] | None,
) -> Generator[tuple[Unit, list[Chunk]]]:
    """Each unit, in order, with what became of its pieces, of which each has one at least; `streams` work
    on pieces of several units at once. See `sessions.in_streams`."""
    begun: deque[tuple[Unit, int]] = deque()

    def pieces() -> Iterator[Any]:
        for unit in units:
            its = list(pieces_of(unit))
            begun.append((unit, len(its)))
            yield from its

    chunks: list[Chunk] = []
    with closing(in_streams(streams, run, pieces(), ahead, meanwhile)) as done:
        for chunk in done:
            chunks.append(chunk)
            unit, count = begun[0]
            if len(chunks) == count:
                begun.popleft()
                yield unit, chunks
                chunks = []


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """One of several that follow each other."""
    with_values = [chunk for chunk in chunks if chunk.indices]
    refused = tuple(refusal for chunk in chunks for refusal in chunk.refused)
    decode_s, compute_s = (
        sum(each) for each in zip(*((c.decode_s, c.compute_s) for c in chunks), strict=True)
    )
    if not with_values:
        return Chunk((), NO_VALUES, refused, None, decode_s, compute_s)
    known = [chunk.known for chunk in with_values if chunk.known is not None]
    return Chunk(
        tuple(index for chunk in with_values for index in chunk.indices),
        np.concatenate([chunk.values for chunk in with_values]),
        refused,
        np.concatenate(known) if known else None,
        decode_s,
        compute_s,
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
    started = time.perf_counter()
    answers = answer(engine, pixels)
    compute_s = time.perf_counter() - started
    values, known = answers[engine.outputs[0]], answers.get(KNOWN)
    if values.dtype == np.float16:  # a choice of the training, which says so itself
        return Chunk(tuple(good), values, tuple(refused), compute_s=compute_s)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if known is not None:
        finite &= np.isfinite(known)
    if not finite.all():
        wrong = [(good[row], f"{source_of(good[row])}: {NOT_FINITE}") for row in np.flatnonzero(~finite)]
        refused = sorted([*refused, *wrong])
        good, values = [good[row] for row in np.flatnonzero(finite)], values[finite]
        known = None if known is None else known[finite]
    return Chunk(tuple(good), values, tuple(refused), known, compute_s=compute_s)


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
