"""Photos through a network: decoding and computing overlap, memory stays bounded, bad photos are told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.images.batches import decode
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.folders import Photo
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, Session, in_streams, slices


@dataclass(frozen=True)
class Chunk:
    """What became of a few consecutive photos."""

    indices: tuple[int, ...]
    """Positions, in the list that was given, of the photos that have a row in `values`."""
    values: npt.NDArray[np.float32]
    """The network's output, float32 `[len(indices), …]`."""
    refused: tuple[tuple[int, str], ...]
    """Position and reason of each photo that could not be decoded."""


def forward(
    session: Session,
    decoder: Decoder,
    photos: Sequence[Photo],
    indices: range,
    streams: int,
    per_run: int = PHOTOS_PER_RUN,
    stop_computing_at_refusal: bool = False,
    ahead: int = 2,
) -> Iterator[Chunk]:
    """Run `photos[i]` for `i` in `indices` through the session's one output, in order.

    With `stop_computing_at_refusal`, photos after a bad one are only decoded: for callers that will use
    nothing of the pass once a photo was refused, but want the whole list. At most `ahead` chunks per stream
    wait to be taken.
    """
    [output] = session.outputs
    width = session.output_shapes[output][1:]
    seen_bad = False

    def run(piece: Sequence[int]) -> Chunk:
        nonlocal seen_bad
        pixels, good, refused = decode(decoder, photos, piece)
        seen_bad = seen_bad or bool(refused)
        if not good or (seen_bad and stop_computing_at_refusal):
            empty = np.empty((0, *(size if isinstance(size, int) else 0 for size in width)), np.float32)
            return Chunk((), empty, tuple(refused))
        return Chunk(tuple(good), answer(session, pixels), tuple(refused))

    return in_streams(streams, run, slices(indices, per_run), ahead)


def answer(session: Session, pixels: Pixels) -> npt.NDArray[np.float32]:
    """The network's one output for some photos, float32 `[photos, …]`.

    Where a session takes runs of one size only (`lay_side_by_side`), black photos fill up fewer.
    """
    [output] = session.outputs
    size = session.input_shapes[INPUT][0]
    if isinstance(size, int) and len(pixels) < size:
        filled = np.zeros((size, *pixels.shape[1:]), pixels.dtype)
        filled[: len(pixels)] = pixels
        return session.run({INPUT: filled})[output][: len(pixels)]
    return session.run({INPUT: pixels})[output]
