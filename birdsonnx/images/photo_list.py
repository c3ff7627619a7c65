"""Photos by the million: a list that keeps their file names as bytes, and makes a `Photo` where one is asked
for.

A `Photo` with its `Path` takes 600 bytes and more, its file name, a number and a share of its folder's path
40.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdsonnx.images.made_on_access import MadeOnAccess
from birdsonnx.images.packed_texts import ENCODING, ERRORS, PackedTexts


@dataclass(frozen=True, slots=True)
class Photo:
    """A file, and its name in results: its path relative to the folder that was named."""

    path: Path
    name: str
    label: int | None = None
    """Index of its class, where class folders give one."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What photos of one folder have in common."""

    place: str
    """What stands before the file's name in its path: the folder with a separator, or nothing."""
    title: str
    """What stands before it in its name in results: folders, each with `/` behind it, or nothing."""
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The names of some files of a folder, in order. No file name holds a NUL."""

    packed: bytes
    count: int

    @classmethod
    def of(cls, names: Iterable[str]) -> "Files":
        ordered = sorted(names)
        return cls("\0".join(ordered).encode(ENCODING, ERRORS), len(ordered))

    def names(self) -> list[str]:
        return self.packed.decode(ENCODING, ERRORS).split("\0") if self.count else []


class PhotoList(MadeOnAccess[Photo]):
    """Many photos; `photos[i]` is a new `Photo` each time.

    Args:
        folders: those that photos lie in.
        files: the name of each photo's file.
        members: of each photo, the number of its folder.
    """

    __slots__ = ("_files", "_folders", "_members")

    def __init__(self, folders: Sequence[Folder], files: PackedTexts, members: "array[int]") -> None:
        self._folders = folders
        self._files = files
        self._members = members

    @classmethod
    def in_order(
        cls, content: Iterable[tuple[Folder, Files]], key: Callable[[str], str] = str
    ) -> "PhotoList":
        """The photos of folders, ordered by the `key` of their names; of equal ones those first whose folder
        comes first. The key must leave a file name's own order alone."""
        parts = sorted((each for each in content if each[1].count), key=lambda part: key(part[0].title))
        packed, members = PackedTexts(), array("I")
        for first, last in _runs([key(folder.title) for folder, _ in parts]):
            names, numbers = _merged(parts, range(first, last), key)
            packed.extend(names)
            members.frombytes(numbers.tobytes())
        return cls([folder for folder, _ in parts], packed, members)

    def __len__(self) -> int:
        return len(self._members)

    def made(self, index: int) -> Photo:
        folder = self._folders[self._members[index]]
        file = self._files[index]
        return Photo(Path(folder.place + file), folder.title + file, folder.label)

    def __repr__(self) -> str:
        return f"<PhotoList of {len(self)}>"

    def names(self) -> Iterator[str]:
        """Each photo's name in results."""
        titles = [folder.title for folder in self._folders]
        return (titles[folder] + file for folder, file in zip(self._members, self._files, strict=True))

    def paths(self) -> Iterator[str]:
        """Each photo's path, as text: a third of the time that `Path` takes."""
        places = [folder.place for folder in self._folders]
        return (places[folder] + file for folder, file in zip(self._members, self._files, strict=True))

    @property
    def folders(self) -> Sequence[Folder]:
        """Those that photos lie in."""
        return self._folders

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Each photo's, int64 `[photos]`; -1 where it has none."""
        of_folder = [-1 if folder.label is None else folder.label for folder in self._folders]
        found: npt.NDArray[np.int64] = np.array(of_folder, np.int64)[np.frombuffer(self._members, np.uint32)]
        return found

    def with_folders(self, changed: Callable[[Folder], Folder]) -> "PhotoList":
        """The same photos in the same order, where what they have in common is another."""
        return PhotoList([changed(each) for each in self._folders], self._files, self._members)

    def ordered(self, key: Callable[[str], str] = str) -> "PhotoList":
        """The same photos in the order of their names' keys, as `in_order` does."""
        files: list[list[str]] = [[] for _ in self._folders]
        for folder, file in zip(self._members, self._files, strict=True):
            files[folder].append(file)
        parts = ((folder, Files.of(names)) for folder, names in zip(self._folders, files, strict=True))
        return PhotoList.in_order(parts, key)


def _runs(titles: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where parts of a sorted list begin and end that hold whatever lies below their first folder: photos of
    different parts are in the order of these."""
    first = 0
    for place in range(1, len(titles) + 1):
        if place == len(titles) or not titles[place].startswith(titles[first]):
            yield first, place
            first = place


def _merged(
    parts: Sequence[tuple[Folder, Files]], run: range, key: Callable[[str], str]
) -> tuple[list[str], npt.NDArray[np.uint32]]:
    """The file names of some folders, of which the later may lie in the first, in order, and the number of
    each one's folder."""
    if len(run) == 1:
        names = parts[run.start][1].names()
        return names, np.full(len(names), run.start, np.uint32)
    names, keys, counts = [], [], []
    for number in run:
        folder, files = parts[number]
        own, title = files.names(), key(folder.title)
        names += own
        keys += [title + name for name in own]
        counts.append(len(own))
    # Each folder's are in order already, which is most of the work of a sort.
    order = sorted(range(len(keys)), key=keys.__getitem__)
    numbers = np.repeat(np.array(run, np.uint32), counts)
    return [names[place] for place in order], numbers[order]


def by_folders(name: str) -> str:
    """A key to `PhotoList.in_order`: the order of paths, folder by folder (`a/1` before `a-b/1`)."""
    return name.replace("/", "\0")


def names_of(photos: Sequence[Photo]) -> Iterator[str]:
    """Each photo's name in results."""
    return photos.names() if isinstance(photos, PhotoList) else (photo.name for photo in photos)


def paths_of(photos: Sequence[Photo]) -> Iterator[str]:
    """Each photo's path, as text."""
    return photos.paths() if isinstance(photos, PhotoList) else (str(photo.path) for photo in photos)


def labels_of(photos: Sequence[Photo]) -> npt.NDArray[np.int64]:
    """Each photo's label, int64 `[photos]`. Raises TypeError where one has none."""
    if isinstance(photos, PhotoList):
        return photos.labels
    return np.array([photo.label for photo in photos], np.int64)


def relabelled(photos: Sequence[Photo], label_of: dict[int, int]) -> Sequence[Photo]:
    """The same photos with other labels; who has none still has none."""

    def other(label: int | None) -> int | None:
        return None if label is None else label_of[label]

    if isinstance(photos, PhotoList):
        return photos.with_folders(lambda folder: replace(folder, label=other(folder.label)))
    return tuple(replace(photo, label=other(photo.label)) for photo in photos)


class Repeated(MadeOnAccess[Photo]):
    """A list in which each photo comes so many times, one after the other."""

    def __init__(self, photos: Sequence[Photo], count: int) -> None:
        self._photos = photos
        self._count = count

    def __len__(self) -> int:
        return len(self._photos) * self._count

    def made(self, index: int) -> Photo:
        return self._photos[index // self._count]
