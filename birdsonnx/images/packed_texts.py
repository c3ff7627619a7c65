"""Texts by the million, kept as their bytes: a `str` of 20 letters takes 70 bytes, and 28 here."""

from array import array
from collections.abc import Iterable

import numpy as np

from birdsonnx.images.made_on_access import MadeOnAccess

ENCODING, ERRORS = "utf-8", "surrogatepass"
"""File names that are no UTF-8 are texts with lone surrogates (`os.fsdecode`), which go through."""


class PackedTexts(MadeOnAccess[str]):
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

    def made(self, index: int) -> str:
        return self._text[self._ends[index] : self._ends[index + 1]].decode(ENCODING, ERRORS)
