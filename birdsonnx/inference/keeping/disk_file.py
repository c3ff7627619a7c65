"""A file for HDF5 that survives a full disk.

When a write fails, the HDF5 library cannot flush its own caches any more: closing the file then floods
stderr, and crashed the process in one of our trials. So HDF5 never sees a failure: what does not fit on the
disk stays in memory (the few blocks that closing writes), and the writer calls `check`, and stops in time.
"""

import io
import os
from pathlib import Path
from typing import Any


class DiskFile(io.RawIOBase):
    """A new binary file for `h5py.File`, which reads, writes and truncates it at any position."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._failure: OSError | None = None
        self._late: list[tuple[int, bytes]] = []
        self._position = 0
        self._end = 0

    def check(self) -> None:
        """Raises the OSError of the first write that failed, if one has."""
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, content: Any, /) -> int:
        piece = bytes(content)
        if self._failure is None:
            try:
                self._file.seek(self._position)
                written = 0
                while written < len(piece):
                    written += self._file.write(piece[written:])
            except OSError as error:
                self._failure = error
        if self._failure is not None:
            self._late.append((self._position, piece))
        self._position += len(piece)
        self._end = max(self._end, self._position)
        return len(piece)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        start, stop = self._position, self._position + len(view)
        self._file.seek(start)
        found = self._file.read(len(view)) or b""
        view[:] = found.ljust(len(view), b"\0")
        for offset, piece in self._late:
            first, last = max(offset, start), min(offset + len(piece), stop)
            if first < last:
                view[first - start : last - start] = piece[first - offset : last - offset]
        self._position = stop
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        self._end = self._position if size is None else size
        try:
            self._file.truncate(self._end)
        except OSError as error:
            self._failure = self._failure or error
        return self._end

    def close(self) -> None:
        self._file.close()
        super().close()
