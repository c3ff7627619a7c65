"""JSON whose root holds one list that is too long to be in memory as Python's objects: it is read an element
at a time, which takes a tenth of the memory."""

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from birdsonnx.config.json_text import UnmeantError, decoder, require_meant

SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """A value of the root object, or an element of its long list."""

    key: str
    index: int | None
    """In the list; None: it is no element of that."""
    value: Any
    start: int
    end: int
    """Where it stands in the text."""


def pieces(text: str, long: str) -> Iterator[Piece]:
    """Every value of the root object in order; where the key is `long`, and its value a list, an empty one in
    its place, and then every element.

    Raises:
        json.JSONDecodeError: not JSON, or its root is no object.
        UnmeantError: JSON that nobody means.
    """
    reading = _Reading(text)
    seen: set[str] = set()
    place = reading.after(0, "{", "an object {…} is expected")
    if text.startswith("}", place):
        place = reading.after(place, "}")
    else:
        while True:
            if not text.startswith('"', place):
                raise json.JSONDecodeError("a key in double quotes is expected", text, place)
            key, place = reading.value(place, "a key")
            if key in seen:
                raise UnmeantError(f"the key '{key}' is given twice in one object")
            seen.add(key)
            place = reading.after(place, ":")
            if key == long and text.startswith("[", place):
                yield Piece(key, None, [], place, place)
                place = yield from reading.elements(place, key)
            else:
                value, end = reading.value(place, key)
                yield Piece(key, None, value, place, end)
                place = reading.past_space(end)
            if not text.startswith(",", place):
                break
            place = reading.after(place, ",")
        place = reading.after(place, "}")
    if place < len(text):
        raise json.JSONDecodeError("something follows the end of the root object", text, place)


class _Reading:
    def __init__(self, text: str) -> None:
        self._text = text
        self._decoder, self._met = decoder(any_case=False)

    def past_space(self, place: int) -> int:
        found = SPACE.match(self._text, place)
        return place if found is None else found.end()

    def after(self, place: int, mark: str, expected: str = "") -> int:
        """The place after a mark and the space round it."""
        place = self.past_space(place)
        if not self._text.startswith(mark, place):
            raise json.JSONDecodeError(expected or f"'{mark}' is expected", self._text, place)
        return self.past_space(place + 1)

    def value(self, place: int, path: str) -> tuple[Any, int]:
        try:
            value, end = self._decoder.raw_decode(self._text, place)
            # Looked for only where there may be any: to look through a million images takes a minute.
            if self._met or self._text.find("\\u", place, end) >= 0:
                self._met.clear()
                require_meant(value)
        except json.JSONDecodeError:
            raise
        except UnmeantError as error:
            raise UnmeantError(f"{path}: {error}") from None
        except RecursionError:
            raise UnmeantError(f"{path}: nested too deeply") from None
        except ValueError:  # Python's limit on the digits of a number
            raise UnmeantError(f"{path}: a number in it has too many digits") from None
        return value, end

    def elements(self, place: int, key: str) -> Generator[Piece, None, int]:
        """Every element of a list; returns the place after it."""
        place = self.after(place, "[")
        index = 0
        while not (index == 0 and self._text.startswith("]", place)):
            value, end = self.value(place, f"{key}[{index}]")
            yield Piece(key, index, value, place, end)
            index += 1
            place = self.past_space(end)
            if not self._text.startswith(",", place):
                break
            place = self.after(place, ",")
        return self.after(place, "]")
