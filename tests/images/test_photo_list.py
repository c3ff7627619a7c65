"""A list of names in bytes is the list of photos that a plain sort gives."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdsonnx.images import packed_texts
from birdsonnx.images.packed_texts import PackedTexts, TextPlaces
from birdsonnx.images.photo_list import (
    Files,
    Folder,
    Photo,
    PhotoList,
    Repeated,
    by_folders,
    labels_of,
    names_of,
    paths_of,
    relabelled,
)

COMPONENT = st.text("ab-. \udce9é\U0001f426", min_size=1, max_size=3).filter(
    lambda name: name not in (".", "..")
)
NAMES = st.lists(st.lists(COMPONENT, min_size=1, max_size=3).map("/".join), max_size=12)
NO_FOLDERS: list[tuple[Folder, Files]] = []


def listed(names, key=str):
    """Photos of these names, each labelled by the length of its folder's name."""
    folders: dict[str, list[str]] = {}
    for name in names:
        above, _, file = name.rpartition("/")
        folders.setdefault(f"{above}/" if above else "", []).append(file)
    parts = [
        (Folder(f"data/{title}", title, len(title)), Files.of(files)) for title, files in folders.items()
    ]
    return PhotoList.in_order(parts, key)


def expected(names, key):
    return [
        Photo(Path("data", name), name, len(name.rpartition("/")[0]) + ("/" in name))
        for name in sorted(names, key=key)
    ]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(NAMES)
def test_by_name_as_a_plain_sort(names):
    photos = listed(names)
    assert list(photos) == expected(names, str)
    assert list(names_of(photos)) == sorted(names)
    assert list(paths_of(photos)) == [os.fspath(photo.path) for photo in photos]
    assert len(photos) == len(names)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(NAMES)
def test_by_folders_as_paths_are_sorted(names):
    photos = listed(names, by_folders)
    assert list(photos) == expected(names, lambda name: tuple(name.split("/")))
    assert list(photos.ordered()) == expected(names, str)


def test_it_is_a_sequence():
    photos = listed(["b/2.jpg", "a/1.jpg", "3.jpg", "a/10.jpg"])
    everything = list(photos)
    assert photos[-1] == everything[-1]
    assert photos[1:3] == everything[1:3]
    assert photos[::-2] == everything[::-2]
    assert list(reversed(photos)) == everything[::-1]
    assert photos.index(everything[2]) == 2
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            photos[beyond]
    assert list(pickle.loads(pickle.dumps(photos))) == everything
    assert list(PhotoList.in_order(NO_FOLDERS)) == []


def test_labels():
    photos = listed(["b/2.jpg", "a/1.jpg", "3.jpg"])
    np.testing.assert_array_equal(labels_of(photos), [photo.label for photo in photos])
    np.testing.assert_array_equal(labels_of(list(photos)), labels_of(photos))
    others = {0: 7, 2: 9}
    for form in (photos, tuple(photos)):
        assert [photo.label for photo in relabelled(form, others)] == [7, 9, 9]
    without = PhotoList.in_order([(Folder("", ""), Files.of(["1.jpg"]))])
    assert [photo.label for photo in relabelled(without, {})] == [None]


def test_each_photo_several_times():
    photos = listed(["1.jpg", "2.jpg"])
    shown = Repeated(photos, 3)
    assert list(shown) == [photo for photo in photos for _ in range(3)]
    assert shown[-1] == photos[1]
    assert shown[2:4] == [photos[0], photos[1]]


def test_a_name_takes_bytes():
    photos = listed([f"day/IMG_{number:06}.JPG" for number in range(10_000)])
    assert len(pickle.dumps(photos)) < 32 * len(photos)


def test_texts():
    texts = PackedTexts(["a", ""])
    texts.append("ü\udcff")
    texts.extend(["b"])
    assert list(texts) == ["a", "", "ü\udcff", "b"]
    assert (texts[-2], texts[1:3], len(texts)) == ("ü\udcff", ["", "ü\udcff"], 4)


@given(st.lists(st.text("ab", max_size=3), max_size=20), st.text("abc", max_size=3))
def test_places_of_texts(texts, other):
    places = TextPlaces(PackedTexts(texts))
    for text in [*texts, other]:
        assert places.find(text) == (texts.index(text) if text in texts else None)
    again = (place for place, text in enumerate(texts) if text in texts[:place])
    second = next(again, None)
    assert places.first_repeated() == (None if second is None else (texts.index(texts[second]), second))


def test_texts_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(packed_texts, "hash", lambda _: 7, raising=False)
    places = TextPlaces(["a", "b", "c"])
    assert [places.find(text) for text in "abcd"] == [0, 1, 2, None]
    assert places.first_repeated() is None
    assert TextPlaces(["a", "b", "a"]).first_repeated() == (0, 2)
