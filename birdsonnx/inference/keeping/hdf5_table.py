"""Predictions as one table: what one dataset for each photo costs is saved where there are very many.

    log_probs   float32 `[photos, classes]`, in pieces of about 1 MB
    names       text of fixed length `[photos]`, UTF-8 filled up with NUL
    known       float32 `[photos]`, where the model has that output

Row `i` of each is the same photo's, in the order in which photos were named. No file name holds a NUL, so
that any name comes back; texts of one length need no heap, from which a few bytes could fill a memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from birdsonnx.images.packed_texts import PackedTexts
from birdsonnx.images.photo_list import Photo, names_of

LOG_PROBS, NAMES, KNOWN = "log_probs", "names", "known"

PIECE_BYTES = 2**20
"""Of log-probabilities that are written, and read, at once: what HDF5 keeps of a dataset in memory."""

MOST_ROWS = 4096
"""Of a piece: of few classes, or the names would take more than the numbers."""

LONGEST_NAME = 2**16
"""Bytes of a name that is read; paths have 4,096."""


@dataclass(frozen=True)
class Size:
    """How large a table may become, which is known before the first photo."""

    photos: int
    name_bytes: int
    """Of the longest name."""

    @classmethod
    def of(cls, photos: Sequence[Photo]) -> "Size":
        longest = max((len(name.encode(errors="surrogatepass")) for name in names_of(photos)), default=1)
        return cls(len(photos), longest)


class TableRows:
    """Writes rows piece by piece."""

    def __init__(self, file: h5py.File, size: Size) -> None:
        self._file = file
        self._size = size
        self._written = self._filled = 0
        self._pieces: dict[str, npt.NDArray[Any]] = {}

    def put(self, name: str, log_probs: npt.NDArray[np.float32], known: float | None) -> None:
        """Add a photo."""
        if not self._pieces:
            self._begin(len(log_probs), known is not None)
        place, self._filled = self._filled, self._filled + 1
        self._pieces[NAMES][place] = name.encode()
        self._pieces[LOG_PROBS][place] = log_probs
        if known is not None:
            self._pieces[KNOWN][place] = known
        if self._filled == len(self._pieces[NAMES]):
            self.flush()

    def _begin(self, classes: int, has_known: bool) -> None:
        rows = min(max(PIECE_BYTES // (4 * classes), 1), MOST_ROWS, self._size.photos)
        text = h5py.string_dtype("utf-8", max(1, self._size.name_bytes))
        kinds: list[tuple[str, Any, tuple[int, ...]]] = [
            (NAMES, text, ()),
            (LOG_PROBS, np.dtype("<f4"), (classes,)),
        ]
        for name, kind, further in [*kinds, *([(KNOWN, np.dtype("<f4"), ())] if has_known else [])]:
            shape = (rows, *further)
            self._file.create_dataset(
                name, (0, *further), kind, maxshape=(None, *further), chunks=shape, track_times=False
            )
            self._pieces[name] = np.zeros(shape, kind)

    def flush(self) -> None:
        """Write what has come since the last time."""
        if not self._filled:
            return
        first, last = self._written, self._written + self._filled
        for name, piece in self._pieces.items():
            dataset = self._file[name]
            dataset.resize(last, axis=0)
            dataset[first:last] = piece[: self._filled]
        self._written, self._filled = last, 0


def shape_of(shapes: dict[str, tuple[int, ...] | None], file: h5py.File) -> tuple[int, int]:
    """Photos and classes of an open table. Raises ValueError where it is none."""
    shape, names = shapes.get(LOG_PROBS), shapes.get(NAMES)
    if shape is None or names is None or len(shape) != 2 or names != shape[:1]:
        raise ValueError("its table has no log-probabilities with a name each")
    if file[LOG_PROBS].dtype.kind != "f":
        raise ValueError("the log-probabilities of its table are no floating-point numbers")
    kind = file[NAMES].dtype
    if kind.kind != "S" or kind.itemsize > LONGEST_NAME:
        raise ValueError("the names of its table are no texts of fixed length")
    return shape[0], shape[1]


def names_in(file: h5py.File) -> PackedTexts:
    """The names in a table, in order. Raises ValueError or OSError where they cannot be read."""
    names = PackedTexts()
    for piece in _pieces(file[NAMES], file[NAMES].dtype.itemsize):
        for name in piece.tolist():
            names.append(name.decode())
    return names


def rows_in(file: h5py.File) -> Iterator[npt.NDArray[np.float32]]:
    """The log-probabilities of a table, float32 `[classes]` each. Raises ValueError or OSError where they
    cannot be read."""
    dataset = file[LOG_PROBS]
    for piece in _pieces(dataset, dataset.dtype.itemsize * dataset.shape[1]):
        yield from piece.astype(np.float32)


def _pieces(dataset: h5py.Dataset, row_bytes: int) -> Iterator[npt.NDArray[Any]]:
    # As it was written: half a piece would be read twice.
    written = dataset.chunks[0] if dataset.chunks else 1
    rows = max(1, min(written, 16 * PIECE_BYTES // max(1, row_bytes)))
    for start in range(0, dataset.shape[0], rows):
        yield dataset[start : start + rows]
