"""What disks say of photos' files, against `Path.stat` one by one."""

from pathlib import Path

import numpy as np

from birdsonnx.images import photo_status
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.photo_status import DEVICE, SIZE, TIMES, status_of


def test_it_is_that_of_each_file(monkeypatch):
    monkeypatch.setattr(photo_status, "PHOTOS_PER_TASK", 3)
    paths = [Path(f"{number}.jpg") for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes(number))
    paths[4].unlink()
    twice = [path for path in paths for _ in range(2)]  # as parts of photos come
    found = status_of([Photo(path, str(path)) for path in twice])
    assert found.shape == (20, 5)
    for path, row in zip(twice, found, strict=True):
        if path == paths[4]:
            assert row.tolist() == [-1] * 5
            continue
        now = path.stat()
        assert (row[DEVICE], row[1], row[SIZE]) == (now.st_dev, now.st_ino, now.st_size)
        assert row[TIMES].tolist() == [now.st_mtime_ns, now.st_ctime_ns]
    paths[7].write_bytes(b"other")
    changed = status_of([Photo(path, str(path)) for path in twice]) != found
    assert np.flatnonzero(changed.any(axis=1)).tolist() == [14, 15]


def test_of_none_there_is_none():
    assert status_of([]).shape == (0, 5)
