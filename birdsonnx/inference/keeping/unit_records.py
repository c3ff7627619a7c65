"""A record of the progress of a prediction: what became of the photos of a unit (`units`).

magic, first piece, pieces, rows, bytes of text    little-endian, `HEAD`
BLAKE2b of the status of the photos' files, before they were read
checksum                                           BLAKE2b of all the others, with a key made of the line
positions of the rows in the unit                  uint32 [rows]
log-probabilities                                  float32 [rows, classes]
`known`, where the network has it                  float32 [rows]
positions and reasons of the refused photos        JSON
"""

import json
import struct
from dataclasses import dataclass

import numpy as np

from birdsonnx.artifacts.checksums import FINGERPRINT_BYTES, fingerprint
from birdsonnx.images.photo_status import DEVICE, Status
from birdsonnx.inference.forward import NO_VALUES, Chunk
from birdsonnx.inference.units import Pieces, Unit

HEAD = struct.Struct(f"<4sQIII{FINGERPRINT_BYTES}s")
MAGIC = b"unit"
POSITION, VALUE = np.dtype("<u4"), np.dtype("<f4")


@dataclass(frozen=True)
class Shape:
    """What records hold."""

    pieces: Pieces
    classes: int
    has_known: bool
    """Whether the network has the output `known`."""
    status: Status
    """Of the photos, before any of them is read."""

    def stamp_of(self, unit: Unit) -> bytes:
        """What tells whether one of the unit's photos has changed."""
        photos = self.pieces.positions(unit)
        # Not the device: the same network disk has another number on another host.
        return fingerprint(self.status[photos.start : photos.stop, DEVICE + 1 :].tobytes())

    def payload_bytes(self, rows: int, text: int) -> int:
        return rows * (POSITION.itemsize + VALUE.itemsize * (self.classes + self.has_known)) + text

    def payload_of(self, unit: Unit, chunk: Chunk) -> tuple[bytes, int]:
        """A record's payload, and how much of it is text."""
        first = self.pieces.positions(unit).start
        positions = np.array(chunk.indices, np.int64) - first
        values = [] if chunk.known is None or not chunk.indices else [chunk.known]
        refused = [[index - first, reason] for index, reason in chunk.refused]
        text = json.dumps(refused).encode() if refused else b""
        rows = [positions.astype(POSITION), *(np.asarray(each, VALUE) for each in (chunk.values, *values))]
        return b"".join([*(each.tobytes() for each in rows), text]), len(text)

    def chunk_of(self, unit: Unit, rows: int, payload: bytes) -> Chunk | None:
        """The same back; None where it is not what becomes of the unit's photos."""
        photos = self.pieces.positions(unit)
        place = rows * POSITION.itemsize
        indices = (np.frombuffer(payload, POSITION, rows).astype(np.int64) + photos.start).tolist()
        values = np.frombuffer(payload, VALUE, rows * self.classes, place).astype(np.float32)
        place += values.nbytes
        known = np.frombuffer(payload, VALUE, rows * self.has_known, place).astype(np.float32)
        refused = _refused_in(payload[place + known.nbytes :], photos.start)
        together = None if refused is None else sorted([*indices, *(index for index, _ in refused)])
        if refused is None or together != list(photos) or indices != sorted(indices):
            return None
        if not (np.isfinite(values).all() and np.isfinite(known).all()):
            return None
        if not rows:
            return Chunk((), NO_VALUES, refused)
        table = values.reshape(rows, self.classes)
        return Chunk(tuple(indices), table, refused, known if self.has_known else None)


def _refused_in(text: bytes, first: int) -> tuple[tuple[int, str], ...] | None:
    """Positions and reasons; None where the text is something else."""
    try:
        found = json.loads(text or b"[]")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    for each in found:
        if not (isinstance(each, list) and [type(part) for part in each] == [int, str]):
            return None
    return tuple((first + index, reason) for index, reason in found)
