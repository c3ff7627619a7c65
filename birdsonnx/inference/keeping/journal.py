"""What a prediction has computed so far, beside what it will write: a killed run is gone on with.

Beside `output_1.h5` that is the folder `output_1.h5.progress`. Each run writes numbered files of its own into
it. A file begins with a line of JSON, which says what decides the answers (`deciding.Facts`); records follow,
each of what became of the photos of a unit (`unit_records`).

A record goes to the system in one call once its unit is done: a process that is killed loses the units that
it works on. The disk is not waited for (no fsync): after a power cut what it holds is what counts, and what
does not fit its checksum is computed anew, as are units with a photo whose file has changed. Nothing in the
folder is believed: sizes are compared before memory is taken, and a file of other facts, or no file of ours,
is removed.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from birdsonnx import artifacts
from birdsonnx.artifacts import temporary
from birdsonnx.artifacts.checksums import FINGERPRINT_BYTES, fingerprint
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.inference.deciding import Facts
from birdsonnx.inference.forward import Chunk
from birdsonnx.inference.keeping.unit_records import HEAD, MAGIC, Shape
from birdsonnx.inference.units import Done, Unit
from birdsonnx.runtime import interruption

SUFFIX = ".progress"
LONGEST_NAME = 255
"""Bytes that file systems give a name."""

FILE_NAME = re.compile(r"(\d{5,9})\.units")
FILE_BYTES = 2**24
"""After which the next file begins: damage to a record's head costs the rest of its file, at the most 10,000
photos of 400 classes."""
LONGEST_LINE = 2**16
LONGEST_REASON = 2**14
"""Bytes of text that a refused photo may have on average."""


def folder_beside(target: Path) -> Path:
    """Where the progress of what becomes `target` is kept."""
    name = target.name + SUFFIX
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = artifacts.sha256_of(os.fsencode(target.name))[:16] + SUFFIX
    return target.with_name(name)


@dataclass(frozen=True)
class _Place:
    """Where a record is."""

    file: Path
    offset: int


class _Record(NamedTuple):
    """What a file holds of a unit."""

    offset: int
    done: Done | None
    """None: it is damaged."""
    is_of_now: bool
    """Whether the photos are still those that were read."""


class Journal:
    """The units that are done, of this run and of those before it that were killed.

    Args:
        folder: that of `folder_beside`.
        facts: what decides the answers.
        shape: what records hold.
    """

    def __init__(self, folder: Path, facts: Facts, shape: Shape) -> None:
        self.folder = folder
        self._shape = shape
        self._line = facts.line()
        self._key = fingerprint(self._line).hex()
        self.units: dict[int, Unit] = {}
        """Those of earlier runs, by their first pieces, in order."""
        self.damaged = 0
        """Records of earlier runs that cannot be used."""
        self.changed = 0
        """Units of earlier runs with a photo that has changed since."""
        self.photos = 0
        """In the units that are done."""
        self.read_photos = 0
        """Those among the answers given so far that were not computed by this run."""
        self.others: list[bytes] = []
        """First lines of files of other facts, which were removed."""
        self._places: dict[int, _Place] = {}
        self._open: tuple[Path, BinaryIO] | None = None
        self._out: int | None = None
        self._written = 0
        self._number = 0
        self._look()

    # --- what is there -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Find what earlier runs have done. Raises OSError where the folder cannot be read, or is none."""
        try:
            if not stat.S_ISDIR(os.lstat(self.folder).st_mode):
                raise NotADirectoryError(0, "no folder")
        except FileNotFoundError:
            return
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                found = FILE_NAME.fullmatch(entry.name)
                if found is not None:
                    files.append((int(found[1]), Path(entry.path)))
        self._number = max((number for number, _ in files), default=0)
        is_taken, stale = bytearray(len(self._shape.pieces)), list[Unit]()
        for _, path in sorted(files):
            if not self._read_file(path, is_taken, stale):
                temporary.remove(path)
        self.changed = sum(not is_taken[unit.start] for unit in stale)
        self.units = dict(sorted(self.units.items()))
        self.photos = sum(len(self._shape.pieces.positions(unit)) for unit in self.units.values())

    def _read_file(self, path: Path, is_taken: bytearray, stale: list[Unit]) -> bool:
        """Note the records of a file; False: it is of other facts, or not ours."""
        try:
            with open(path, "rb", opener=opener) as file:
                line = file.readline(LONGEST_LINE)
                if line != self._line:
                    self.others.append(line)
                    return False
                while (record := self._record_in(file)) is not None:
                    offset, done, is_of_now = record
                    if done is None:
                        self.damaged += 1
                        continue
                    unit = done[0]
                    if not is_of_now:
                        stale.append(unit)
                        continue
                    if any(is_taken[number] for number in unit):
                        self.damaged += 1
                        continue
                    is_taken[unit.start : unit.stop] = b"\1" * len(unit)
                    self.units[unit.start], self._places[unit.start] = unit, _Place(path, offset)
        except OSError:
            return False
        return True

    def _record_in(self, file: BinaryIO) -> _Record | None:
        """The next record; None where nothing can be read any more: there is no other, or the run was killed
        while it wrote."""
        offset = file.tell()
        head = file.read(HEAD.size + FINGERPRINT_BYTES)
        if len(head) < HEAD.size + FINGERPRINT_BYTES:
            return None
        magic, first, count, rows, text, stamp = HEAD.unpack_from(head)
        unit = range(first, first + count)
        if magic != MAGIC or not count or unit.stop > len(self._shape.pieces):
            self.damaged += 1
            return None
        photos = len(self._shape.pieces.positions(unit))
        size = self._shape.payload_bytes(rows, text)
        left = os.fstat(file.fileno()).st_size - file.tell()
        if rows > photos or text > photos * LONGEST_REASON or size > left:
            self.damaged += size <= left
            return None
        payload = file.read(size)
        if len(payload) < size:
            return None
        if fingerprint(head[: HEAD.size] + payload, self._key) != head[HEAD.size :]:
            return _Record(offset, None, False)
        chunk = self._shape.chunk_of(unit, rows, payload)
        done = None if chunk is None else (unit, chunk)
        return _Record(offset, done, stamp == self._shape.stamp_of(unit))

    def read(self, start: int) -> Done | None:
        """The unit of an earlier run that begins at a piece, if there is one.

        Raises:
            ArtifactError: it has changed since this run began.
        """
        place = self._places.get(start)
        if place is None:
            return None
        record = None
        with contextlib.suppress(OSError):
            if self._open is None or self._open[0] != place.file:
                self._close_read()
                self._open = (place.file, open(place.file, "rb", opener=opener))  # noqa: SIM115
            file = self._open[1]
            file.seek(place.offset)
            record = self._record_in(file)
        if record is None or record.done is None or record.done[0] != self.units[start]:
            raise ArtifactError(
                f"{place.file}: changed while this run read it; run the same command again"
            ) from None
        self.read_photos += len(record.done[1].indices)
        return record.done

    # --- what this run adds -------------------------------------------------------------------------------

    def add(self, unit: Unit, chunk: Chunk) -> None:
        """Note what became of a unit's photos. Raises ArtifactError where it cannot be written."""
        payload, text = self._shape.payload_of(unit, chunk)
        stamp = self._shape.stamp_of(unit)
        head = HEAD.pack(MAGIC, unit.start, len(unit), len(chunk.indices), text, stamp)
        record = b"".join([head, fingerprint(head + payload, self._key), payload])
        with interruption.held(), artifacts.naming(self.folder):
            if self._out is None or self._written >= FILE_BYTES:
                self._begin_file()
            self._write(record)
        self.photos += len(self._shape.pieces.positions(unit))

    def _begin_file(self) -> None:
        self._close_written()
        self.folder.mkdir(exist_ok=True)
        self._number += 1
        path = self.folder / f"{self._number:05}.units"
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._written = 0
        self._write(self._line)

    def _write(self, content: bytes) -> None:
        assert self._out is not None
        view = memoryview(content)
        while view:
            view = view[os.write(self._out, view) :]
        self._written += len(content)

    # --- its end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave everything for the next run."""
        self._close_read()
        self._close_written()

    def remove(self) -> None:
        """Everything is written: it is needed no more. What cannot be removed stays, without a word."""
        self.close()
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                if FILE_NAME.fullmatch(path.name):
                    temporary.remove(path)
            self.folder.rmdir()

    def _close_read(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _close_written(self) -> None:
        if self._out is not None:
            os.close(self._out)
            self._out = None


@contextlib.contextmanager
def kept(
    target: Path, facts: Facts, shape: Shape, what: str, say: Callable[[str], None]
) -> Iterator[Journal | None]:
    """The progress of what becomes `target`, which no other process may write; `say` is told what it is gone
    on with, or why not. It stays where the block ends with an error; else it is removed. None: it cannot be
    kept.

    Args:
        what: is named, such as `photos`.
    """
    folder = folder_beside(target)
    try:
        journal = Journal(folder, facts, shape)
    except OSError as error:
        say(f"{folder}: {error.strerror}; so a run that is stopped begins anew")
        yield None
        return
    total = shape.pieces.photos
    if journal.units:
        lost = [(journal.damaged, "damaged records"), (journal.changed, "records of changed photos")]
        anew = ", ".join(f"{which} {count:,}" for count, which in lost if count)
        anew = f"; computed anew: {anew}" if anew else ""
        say(f"going on after {journal.photos:,} of {total:,} {what} ({folder}){anew}")
    elif journal.others or journal.damaged or journal.changed:
        why = "photos have changed" if journal.changed else "it is damaged"
        why = facts.unlike(journal.others[0]) if journal.others else why
        say(f"{folder}: of a run that did not end, but {why}; beginning anew")
    with contextlib.closing(journal):
        try:
            yield journal
        except interruption.Interrupted as stop:
            if not journal.photos:
                raise
            raise stop.adding(_advice(journal, total, what)) from None
        except ArtifactError as error:
            if not journal.photos:
                raise
            raise _with(error, _advice(journal, total, what)) from error
        except DataError:  # not one photo can be used
            journal.remove()
            raise
        journal.remove()


def _advice(journal: Journal, total: int, what: str) -> str:
    return f"the same command goes on after {journal.photos:,} of {total:,} {what}"


def _with(error: ArtifactError, advice: str) -> ArtifactError:
    changed: Any = type(error)(f"{error}; {advice}")
    changed.agreed = error.agreed
    assert isinstance(changed, ArtifactError)
    return changed
