"""Folders are listed by several threads; what is found is that of one."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from birdsonnx.errors import DataError
from birdsonnx.images import walking
from birdsonnx.images.files import photos_below
from birdsonnx.images.inputs import collect


@pytest.fixture
def tree():
    """3 levels of folders with photos, files of other kinds, and links."""
    for number in range(40):
        folder = Path("data", f"{number % 4}", f"{number % 8}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").touch()
        (folder / f"{number}.txt").touch()
    Path("data/again").symlink_to(Path("data/1/5").absolute())
    Path("data/2/round").symlink_to(Path("data").absolute())


def found():
    below = photos_below(Path("data"))
    return [(each.place, each.photos.names(), each.others.names()) for each in below.folders]


@pytest.mark.usefixtures("tree")
def test_whichever_folder_answers_first(monkeypatch):
    usual, names = found(), [photo.name for photo in collect(["data"])]
    assert len(names) == 40
    real = os.scandir

    def late(path):
        time.sleep(random.random() / 200)
        return real(path)

    monkeypatch.setattr(os, "scandir", late)
    for _ in range(5):
        assert found() == usual
    assert [photo.name for photo in collect(["data"])] == names


@pytest.mark.usefixtures("tree")
def test_several_folders_are_waited_for_together(monkeypatch):
    real, lock, now, most = os.scandir, threading.Lock(), 0, 0

    def counted(path):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return real(path)

    monkeypatch.setattr(os, "scandir", counted)
    found()
    assert most >= 4


def test_photos_are_not_looked_up_one_by_one(monkeypatch):
    Path("data/a").mkdir(parents=True)
    for number in range(50):
        Path(f"data/a/{number}.jpg").touch()
    real, asked = os.stat, []
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(path) or real(path, **options))
    photos_below(Path("data"))
    assert asked == ["data", "data/a"]


@pytest.mark.usefixtures("tree")
def test_photos_are_counted_as_they_are_found(monkeypatch):
    monkeypatch.setattr(walking, "COUNTED_AT_ONCE", 3)
    told = []
    collect(["data"], advance=told.append)
    assert sum(told) == 40
    assert len(told) > 8


@pytest.mark.usefixtures("tree")
def test_a_folder_that_cannot_be_read(monkeypatch):
    real = os.scandir

    def refused(path):
        if path == "data/3/7":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"^data/3/7: cannot be read \(Permission denied\)$"):
        photos_below(Path("data"))
    assert threading.active_count() < 20
