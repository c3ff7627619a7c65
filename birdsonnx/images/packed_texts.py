"""Texts by the million, kept as their bytes: a `str` of 20 letters takes 70 bytes, and 28 here."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

ENCODING, ERRORS = "utf-8", "surrogatepass"
"""File names that are no UTF-8 are texts with lone surrogates (`os.fsdecode`), which go through."""


class PackedTexts(Sequence[str]):
    """Texts in order, to which more are appended."""

    __slots__ = ("_ends", "_text")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._text = bytearray()
        self._ends = array("q", [0])
        self.extend(texts)

    def append(self, text: str) -> None:
        self._text += text.encode(ENCODING, ERRORS)
        self._ends.append(len(self._text))

    def extend(self, texts: Iterable[str]) -> None:
        packed = [text.encode(ENCODING, ERRORS) for text in texts]
        lengths = np.fromiter(map(len, packed), np.int64, len(packed))
        self._ends.frombytes((len(self._text) + lengths.cumsum()).tobytes())
        self._text += b"".join(packed)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        return self._text[self._ends[index] : self._ends[index + 1]].decode(ENCODING, ERRORS)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
