"""What disks say of photos' files: enough to notice that one has changed, without reading it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

import numpy as np
import numpy.typing as npt

from birdsonnx.images.photo_list import Photo, paths_of
from birdsonnx.runtime.sessions import in_streams

Status = npt.NDArray[np.int64]
"""`[photos, 5]`: device, inode, size (bytes), and when content and status have changed (ns); -1 where there
is no such file."""

DEVICE, SIZE, TIMES = 0, 2, slice(3, 5)

LARGEST = 2**63 - 1
"""Devices and inodes may have 64 bits without a sign."""

THREADS = 8
"""A network disk answers one question in 0.2 to 1 ms, however many are asked at once. A local one takes 6 us
a photo then, instead of 3.4 by one thread."""
PHOTOS_PER_TASK = 1000


def status_of(photos: Sequence[Photo]) -> Status:
    """The status of each photo's file as it is now."""
    paths = paths_of(photos)
    tasks = iter(lambda: list(islice(paths, PHOTOS_PER_TASK)), [])
    return np.concatenate([np.empty((0, 5), np.int64), *in_streams(THREADS, _status, tasks)])


def _status(paths: Sequence[str]) -> Status:
    found = np.full((len(paths), 5), -1, np.int64)
    last, place = None, 0
    for row, path in enumerate(paths):
        if path == last:  # parts of a photo follow each other
            found[row] = found[place]
            continue
        last, place = path, row
        with suppress(OSError):
            now = os.stat(path)  # noqa: PTH116 - twice as fast as Path's
            facts = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            found[row] = [fact & LARGEST for fact in facts]
    return found
