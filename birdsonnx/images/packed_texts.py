"""Texts by the million, kept as their bytes: a `str` of 20 letters takes 70 bytes, and 28 here."""

from array import array
from collections.abc import Iterable, Sequence

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


class TextPlaces:
    """The place of each text in a list, by hashes of 16 bytes a text, where a `dict` takes 200."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
        self._order = hashes.argsort(kind="stable")
        self._hashes = hashes[self._order]

    def find(self, text: str) -> int | None:
        """The first place of a text; None: it is not there."""
        wanted = hash(text)
        at = int(self._hashes.searchsorted(wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            place = int(self._order[at])
            if self._texts[place] == text:
                return place
            at += 1
        return None

    def first_repeated(self) -> tuple[int, int] | None:
        """Of the first text that was there before: where, and its own place."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        for place in sorted(self._order[same + 1].tolist()):
            before = self.find(self._texts[place])
            if before is not None and before != place:
                return before, place
        return None
