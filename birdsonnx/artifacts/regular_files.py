"""Files that others made, read only where they are regular: of a pipe or a device reading may never end, and
opening a pipe without a writer would not."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST = 2**31
"""Bytes of a file that is read whole. Protobuf allows a model no more."""


class IrregularError(OSError):
    """What is there is no regular file."""


def opener(path: str, flags: int) -> int:
    """For `open`. Raises OSError, as IrregularError where there is no regular file."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularError(errno.EINVAL, "no regular file, but a folder, a pipe or a device", path)
    return descriptor


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The content of a file. Raises OSError, also where it has more than `most` bytes."""
    with open(path, "rb", opener=opener) as file:
        require_size(file, most)
        return file.read()


def require_size(file: BinaryIO, most: int) -> int:
    """Bytes of an open file. Raises OSError where they are more than `most`."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", file.name)
    return size
