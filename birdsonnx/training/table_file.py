"""The file of a feature table: a `.npy`, and after its rows a checksum of each piece of them.

NumPy maps the rows and does not see the rest. With the checksums a table that was damaged, cut or overwritten
is noticed and made again; a piece is small enough that the ranks of a host check some each.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from birdsonnx.artifacts.checksums import FINGERPRINT_BYTES, fingerprint
from birdsonnx.errors import ArtifactError

PIECE_BYTES = 2**24


@dataclass(frozen=True)
class Layout:
    """Where what is in a table of `count` rows of one kind."""

    name: str
    """Of the file; its checksums are no other's."""
    count: int
    row: np.dtype[Any]

    @cached_property
    def header(self) -> bytes:
        """What NumPy writes before the rows: 128 bytes, whatever the shape."""
        buffer = io.BytesIO()
        description = {
            "descr": self.row.base.str,
            "fortran_order": False,
            "shape": (self.count, *self.row.shape),
        }
        np.lib.format.write_array_header_1_0(buffer, description)
        return buffer.getvalue()

    @property
    def rows_per_piece(self) -> int:
        return max(1, PIECE_BYTES // self.row.itemsize)

    @property
    def pieces(self) -> range:
        return range(-(-self.count // self.rows_per_piece))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.sum_at(len(self.pieces))

    def row_at(self, row: int) -> int:
        """The place of a row."""
        return len(self.header) + row * self.row.itemsize

    def sum_at(self, piece: int) -> int:
        """The place of a checksum."""
        return self.row_at(self.count) + piece * FINGERPRINT_BYTES

    def is_sound(self, path: Path, part: int, parts: int) -> bool:
        """Whether the table is there with the header and size that it must have, and the checksums of this
        part of its pieces are right; else it is made again."""
        try:
            if path.stat().st_size != self.size:
                return False
            with path.open("rb") as file:
                return file.read(len(self.header)) == self.header and all(
                    _read(file, self.sum_at(piece), FINGERPRINT_BYTES) == digest
                    for piece, digest in self.sums(file, part, parts)
                )
        except OSError:
            return False

    def sums(self, file: BinaryIO, part: int, parts: int) -> Iterator[tuple[int, bytes]]:
        """Every `parts`-th piece and the checksum of its rows as they are in the file."""
        for piece in self.pieces[part::parts]:
            rows = range(self.count)[piece * self.rows_per_piece :][: self.rows_per_piece]
            content = _read(file, self.row_at(rows.start), len(rows) * self.row.itemsize)
            yield piece, fingerprint(content, self.name)


class TableFile:
    """The rows of a table, read and written in place by several processes.

    Plain writes, not a memory map: a full disk is then an error, not a signal. The error waits until
    `require_written`: the other ranks have to come along, or they would wait for this one.
    """

    def __init__(self, path: Path, layout: Layout, writable: bool) -> None:
        self._folder = path.parent
        self._layout = layout
        self._file = cast(BinaryIO, path.open("r+b" if writable else "rb", buffering=0))
        self._failure: OSError | None = None

    def require_written(self) -> None:
        """Raises ArtifactError where a write has failed."""
        if self._failure is not None:
            raise ArtifactError(
                f"cannot write the feature cache in {self._folder}: {self._failure.strerror}; make room, set "
                '"birdsonnx": {"cache": "FOLDER"} to another disk, or "cache": false to recompute them'
            )

    def write(self, row: int, values: npt.NDArray[Any]) -> None:
        """Write consecutive rows, the first of them number `row`; nothing after a write that failed."""
        self._write(self._layout.row_at(row), values.tobytes())

    def write_sums(self, part: int, parts: int) -> None:
        """Write the checksums of this part of the pieces, whose rows are all there."""
        for piece, digest in self._layout.sums(self._file, part, parts):
            self._write(self._layout.sum_at(piece), digest)

    def read(self, row: int, count: int) -> npt.NDArray[np.uint8]:
        """The bytes of some rows."""
        content = _read(self._file, self._layout.row_at(row), count * self._layout.row.itemsize)
        return np.frombuffer(content, np.uint8)

    def close(self) -> None:
        self._file.close()

    def _write(self, place: int, content: bytes) -> None:
        left = memoryview(content)
        try:
            self._file.seek(place)
            while left and self._failure is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failure = error


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    content = b""
    while len(content) < count and (more := file.read(count - len(content))):
        content += more
    return content
