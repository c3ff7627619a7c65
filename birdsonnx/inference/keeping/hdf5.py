"""Predictions as HDF5: one float32 dataset `(classes,)` of log-probabilities per photo, or one table of all.

A photo's dataset has its name, subfolders as groups; h5py lists them in name order. Where the model has the
output `known`, each dataset has its score as an attribute of that name. The table is `hdf5_table`'s.

Root attributes: `classes` (absent while the model has no class names), `model` (its file as it was named),
`model_sha256`, `photos`, `refused`, `command` (the record of `artifacts.commands`); of a table also `layout`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.config.wording import nearest_path
from birdsonnx.errors import DataError, ImageError
from birdsonnx.images.packed_texts import PackedTexts
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judged
from birdsonnx.inference.keeping import hdf5_table
from birdsonnx.inference.keeping.disk_file import DiskFile
from birdsonnx.model import foreign_files, h5_safety
from birdsonnx.runtime import interruption

MOST_COMPACT = 60_000
"""Bytes of a dataset that still fit into its header (64 KB). There they need no write of their own, and
h5py's lower interface takes 21 us a photo where `create_dataset` takes 50."""

LAYOUT, TABLE = "layout", "table"
"""The attribute of a table."""

MANY_CLASSES = 3000
"""Above this a list of names does not fit the 64 KB that the oldest HDF5 format gives an attribute."""


class Rows(Protocol):
    """How photos lie in a file."""

    def put(self, name: str, log_probs: npt.NDArray[np.float32], known: float | None) -> None:
        """Add a photo."""

    def flush(self) -> None:
        """Write all that has come."""


class PredictionWriter:
    """An open predictions file."""

    def __init__(self, path: Path, rows: Rows, disk: DiskFile) -> None:
        self._path = path
        self._rows = rows
        self._disk = disk
        self.written = 0
        self.refused = 0

    def put(self, name: str, log_probs: npt.NDArray[np.float32], known: float | None = None) -> None:
        """Store one photo's `log_probs`, float32 `(classes,)`, and its score `known` as an attribute.

        Raises:
            ArtifactError: the disk is full.
        """
        # HDF5 calls our `DiskFile`, and does not survive an exception there, such as that of a signal.
        with interruption.held(), artifacts.naming(self._path):
            self._rows.put(name, log_probs, known)
            self._disk.check()
        self.written += 1

    def add(self, judged: Judged, /) -> None:
        """Store what the network itself answered about a photo, as `put` does."""
        self.put(judged.photo.name, judged.log_probs, judged.known)

    def refuse(self, _photo: Photo, _reason: str, /) -> None:
        """Count a photo that could not be used."""
        self.refused += 1


class _Datasets:
    """One for each photo."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        self._links.set_create_intermediate_group(True)
        self._links.set_char_encoding(h5py.h5t.CSET_UTF8)
        self._compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        self._compact.set_layout(h5py.h5d.COMPACT)
        self._compact.set_obj_track_times(False)  # the same predictions are the same bytes

    def put(self, name: str, log_probs: npt.NDArray[np.float32], known: float | None) -> None:
        """Add a photo."""
        if log_probs.nbytes <= MOST_COMPACT:
            space = h5py.h5s.create_simple(log_probs.shape)
            path, kind = name.encode(), h5py.h5t.IEEE_F32LE
            dataset = h5py.h5d.create(self._file.id, path, kind, space, self._compact, self._links)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(log_probs, np.float32))
        else:
            self._file.create_dataset(name, data=log_probs)
        if known is not None:
            self._file[name].attrs["known"] = np.float32(known)

    def flush(self) -> None:
        """Nothing waits."""


def require_storable(name: str) -> None:
    """Raises ImageError where HDF5 cannot hold the name as it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ImageError(
            f"{name!r}: this file name is not valid UTF-8, so HDF5 cannot hold it; rename it"
        ) from None


@contextlib.contextmanager
def writing(
    path: Path,
    classes: Sequence[str] | None,
    model_sha256: str | None,
    model: str | None = None,
    command: str | None = None,
    table: hdf5_table.Size | None = None,
) -> Iterator[PredictionWriter]:
    """A predictions file that takes its place only once it is complete. An OSError of the body stays what it
    is: it is not one of this file.

    Args:
        model_sha256: of the model's file; None where there is none.
        model: its name; None where there is none.
        command: the record of the command that makes it.
        table: write one table, of this size at the most; None: a dataset for each photo.

    Raises:
        ArtifactError: the file cannot be written.
    """
    version: Any = ("v108", "latest") if classes and len(classes) > MANY_CLASSES else None
    with artifacts.completing(path) as temporary, contextlib.ExitStack() as stack:
        with artifacts.naming(path):
            disk = stack.enter_context(DiskFile(temporary))
            file = stack.enter_context(h5py.File(disk, "w", libver=version))
        rows = _Datasets(file) if table is None else hdf5_table.TableRows(file, table)
        writer = PredictionWriter(path, rows, disk)
        yield writer
        with interruption.held(), artifacts.naming(path):
            rows.flush()
            if table is not None:
                file.attrs[LAYOUT] = TABLE
            if classes is not None:
                file.attrs["classes"] = list(classes)
            if model is not None:  # a file name may be bytes that are no text
                file.attrs["model"] = model.encode(errors="backslashreplace").decode()
            if model_sha256 is not None:
                file.attrs["model_sha256"] = model_sha256
            if command is not None:
                file.attrs["command"] = command
            file.attrs["photos"] = writer.written
            file.attrs["refused"] = writer.refused
            file.close()
            disk.check()


@dataclass(frozen=True)
class Predictions:
    """A predictions file, open to be read."""

    names: Sequence[str]
    """Of its photos, in their order."""
    classes: tuple[str, ...] | None
    model: str | None
    """The file of the model that answered; None where the file does not say."""
    model_sha256: str | None
    width: int
    """Scores of a photo."""
    where: Path
    file: h5py.File
    is_table: bool

    def refusal_of(self, name: str) -> str:
        """Why a photo without finite log-probabilities is not counted."""
        return f"{self.where}: {name}: its log-probabilities are NaN or infinite"

    def rows(self) -> Iterator[npt.NDArray[np.float32]]:
        """Each photo's log-probabilities, float32 `[width]`, in the order of `names`. Raises DataError."""
        rows = hdf5_table.rows_in(self.file) if self.is_table else self._each()
        while True:
            with _readable(self.where):
                row = next(rows, None)
            if row is None:
                return
            yield row

    def _each(self) -> Iterator[npt.NDArray[np.float32]]:
        for name in self.names:
            # By h5py's lower interface, in a third of the time.
            dataset = h5py.h5d.open(self.file.id, name.encode(errors="surrogateescape"))
            row = np.empty(self.width, np.float32)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, row)
            yield row


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Predictions]:
    """Open a predictions file; one photo at a time is in memory.

    Raises:
        DataError: missing, truncated, or not a predictions file; or one whose data lie elsewhere, or are
            larger than it can hold.
    """
    require_file(path)
    refusal = foreign_files.what_to_do(path, "predictions")
    if refusal is not None:
        raise DataError(f"{path}: {refusal}")
    with contextlib.ExitStack() as stack:
        with _readable(path):
            file = stack.enter_context(h5py.File(path, "r"))
            classes = file.attrs.get("classes")
            made_by = (_text_of(file, "model"), _text_of(file, "model_sha256"))
            is_table = _text_of(file, LAYOUT) == TABLE
            try:
                names, width = _content(file, path.stat().st_size, is_table)
            except UnicodeDecodeError:
                raise DataError(f"{path}: a name in its table is no UTF-8") from None
            except ValueError as error:
                raise DataError(f"{path}: {error}") from None
        if not len(names):
            raise DataError(f"{path}: no predictions in it")
        yield Predictions(names, _class_names(classes, path), *made_by, width, path, file, is_table)


def _content(file: h5py.File, stored: int, is_table: bool) -> tuple[PackedTexts, int]:
    """The names of the photos in an open file, and how many scores each has. Raises ValueError."""
    found = h5_safety.datasets(file, stored, "a predictions file")
    if is_table:
        _, width = hdf5_table.shape_of(dict(found), file)
        return hdf5_table.names_in(file), width
    names, shape = PackedTexts(), None
    for name, its_shape in found:
        if its_shape is None or len(its_shape) != 1 or shape not in (None, its_shape):
            raise ValueError("its datasets are not log-probabilities of one set of classes")
        shape = its_shape
        names.append(name)
    return names, 0 if shape is None else shape[0]


def command_of(path: Path) -> str | None:
    """The record of the command that made a predictions file; None where there is none to be read."""
    try:
        require_file(path)
        with _readable(path), h5py.File(path, "r") as file:
            return _text_of(file, "command")
    except DataError:
        return None


def require_file(path: Path) -> None:
    """Raises DataError where there is no file that may hold predictions."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder{nearest_path(path)}")
    if not path.is_file():
        raise DataError(f"{path}: no file of predictions, but a folder, a pipe or a device")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises what HDF5 and NumPy raise over a damaged file as DataError."""
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError, KeyError):
        raise DataError(f"{path}: not a complete predictions file (truncated, or of another kind)") from None


def _text_of(file: h5py.File, attribute: str) -> str | None:
    value = file.attrs.get(attribute)
    return value if isinstance(value, str) else None


def _class_names(found: Any, path: Path) -> tuple[str, ...] | None:
    if found is None:
        return None
    names = tuple(np.asarray(found).reshape(-1).tolist())
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: its attribute 'classes' holds no names")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a class name is there twice")
    return names
