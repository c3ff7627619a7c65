"""What a model file may hold: the graph itself, all its weights in it, and each of them a number.

The runtime would read any file that a tensor names, wherever in the model that tensor is, and run operators
of whoever it knows. So the file is walked before the runtime or the onnx package sees it, by the few fields
that say such things, on the bytes themselves: messages that other readers would put together are judged one
by one, and what no network of ours has (functions, sparse tensors, training information) is refused whole.

Source of the numbers: onnx.proto.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from birdsonnx.errors import ModelError
from birdsonnx.model.wire import LENGTH_DELIMITED, VARINT, fields, text

DEEPEST = 100
"""Messages inside each other; protobuf itself reads no more."""

BOUNDS = frozenset(("Clip", "Max", "Min", "Pad", "Where"))
"""Operators that may read an infinite constant: none of its values need ever come out."""

AT_ONCE = 2**16
"""Weights looked at together: they stay in the cache."""


class Kind(IntEnum):
    """The messages that are looked into."""

    MODEL = 0
    GRAPH = 1
    NODE = 2
    ATTRIBUTE = 3
    TENSOR = 4


INSIDE: dict[Kind, dict[int, Kind]] = {
    Kind.MODEL: {7: Kind.GRAPH},
    Kind.GRAPH: {1: Kind.NODE, 5: Kind.TENSOR},
    Kind.NODE: {5: Kind.ATTRIBUTE},
    Kind.ATTRIBUTE: {5: Kind.TENSOR, 6: Kind.GRAPH, 10: Kind.TENSOR, 11: Kind.GRAPH},
}
"""Which fields hold which messages. Every other one that can hold a tensor is in `REFUSED`."""

ELSEWHERE = "its weights lie in other files; a birdsonnx model holds everything itself"

REFUSED: dict[Kind, dict[int, str]] = {
    Kind.MODEL: {
        20: "it holds training information, and birdsonnx writes none",
        25: "it holds functions of its own, and birdsonnx writes none",
    },
    Kind.GRAPH: {15: "it holds sparse weights, and birdsonnx writes none"},
    Kind.NODE: {},
    Kind.ATTRIBUTE: dict.fromkeys((22, 23), "it holds sparse tensors, and birdsonnx writes none"),
}

INPUT, OUTPUT, NAME, OP_TYPE, DOMAIN = 1, 2, 3, 4, 7
"""Of a node."""
FLOAT_VALUE, FLOAT_VALUES = 2, 7
"""Of an attribute."""
DATA_TYPE, FLOAT_DATA, INT32_DATA, TENSOR_NAME, RAW_DATA, DOUBLE_DATA = 2, 4, 5, 8, 9, 10
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Of a tensor."""
FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
RAW: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype("<f4"),
    FLOAT16: np.dtype("<f2"),
    DOUBLE: np.dtype("<f8"),
    BFLOAT16: np.dtype("<u2"),
}
"""The data types that can hold what is no number, as NumPy reads them."""

OUR_DOMAINS = ("", "ai.onnx")


class Place(NamedTuple):
    """Where a message lies in the file."""

    kind: Kind
    start: int
    stop: int
    depth: int = 0
    node: "Place | None" = None
    """The node that it belongs to."""


def require_sound(content: bytes, where: str) -> None:
    """Refuse a model that birdsonnx cannot have written.

    Of opening a model (read, hash, session) that is 4 %: 21 of 530 ms for a ResNet50, 10 of 230 for its int8
    form.

    Args:
        content: a whole `.onnx` file.
        where: its name in messages.

    Raises:
        ModelError: truncated or of another kind; weights in other files; operators of others; functions,
            sparse tensors; weights that are NaN or infinite.
    """
    walk = _Walk(content)
    try:
        walk.through()
        for place, is_nan in walk.not_finite:
            _require_bound(content, place, is_nan)
    except ValueError:
        raise ModelError(f"{where}: not a complete ONNX file (truncated, or of another kind)") from None
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


class _Walk:
    """Once through all messages of a model that can hold a tensor."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._seen: set[bytes] = set()
        """Attributes: strides, pads and axes are the same bytes over and over, a third of all fields."""
        self.not_finite: list[tuple[Place, bool]] = []
        """Tensors and attributes that hold what is not finite, and whether it is NaN."""

    def through(self) -> None:
        """Walk. Raises ModelError, and ValueError for what is no protobuf message."""
        pending = [Place(Kind.MODEL, 0, len(self._content))]
        while pending:
            place = pending.pop()
            if place.depth > DEEPEST:
                raise ValueError("messages are nested too deeply")
            if place.kind is Kind.TENSOR:
                self._tensor(place)
            else:
                pending += self._inside(place)

    def _inside(self, place: Place) -> list[Place]:
        """The messages in one, whose own fields are judged."""
        kind, start, stop, depth, node = place
        inside, refused = INSIDE[kind], REFUSED[kind]
        if kind is Kind.ATTRIBUTE:
            attribute = self._content[start:stop]
            if attribute in self._seen:
                return []
        found = []
        for number, wire, begins, ends in fields(self._content, start, stop):
            if number in inside and wire == LENGTH_DELIMITED:
                holder = inside[number]
                owner = None if holder is Kind.GRAPH else place if kind is Kind.NODE else node
                found.append(Place(holder, begins, ends, depth + 1, owner))
            elif number in refused:
                raise ModelError(refused[number])
            elif kind is Kind.NODE and number == DOMAIN and wire == LENGTH_DELIMITED:
                _require_ours(text(self._content, begins, ends))
            elif kind is Kind.ATTRIBUTE and number in (FLOAT_VALUE, FLOAT_VALUES) and wire != VARINT:
                self._look_at(place, FLOAT, begins, ends)
        if kind is Kind.ATTRIBUTE and not found:
            self._seen.add(attribute)
        return found

    def _tensor(self, place: Place) -> None:
        types: set[int] = set()
        pieces = []
        for number, wire, begins, ends in fields(self._content, place.start, place.stop):
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and begins):
                raise ModelError(ELSEWHERE)
            if number == DATA_TYPE and wire == VARINT:
                types.add(begins)
            elif number in (FLOAT_DATA, INT32_DATA, RAW_DATA, DOUBLE_DATA):
                pieces.append((number, begins, ends))
        if pieces and len(types) != 1:
            raise ValueError("values of no type, or of several")
        for number, begins, ends in pieces:
            stored = {FLOAT_DATA: FLOAT, DOUBLE_DATA: DOUBLE}.get(number, min(types))
            if number == INT32_DATA and stored in RAW:
                raise ModelError("it holds 16-bit floats in the form of whole numbers; birdsonnx writes none")
            if stored in RAW:
                self._look_at(place, stored, begins, ends)

    def _look_at(self, place: Place, stored: int, start: int, stop: int) -> None:
        """Note a tensor or attribute some of whose values are not finite."""
        kind = RAW[stored]
        values = np.frombuffer(self._content, kind, (stop - start) // kind.itemsize, start)
        for first in range(0, len(values), AT_ONCE):
            some = values[first : first + AT_ONCE]
            if stored == BFLOAT16:  # the upper half of a float32
                some = (some.astype("<u4") << 16).view("<f4")
            if not np.isfinite(some).all():
                self.not_finite.append((place, bool(np.isnan(some).any())))


def _require_ours(domain: str) -> None:
    if domain not in OUR_DOMAINS:
        raise ModelError(f"it holds operators of {domain!r}; a birdsonnx model has none but those of ai.onnx")


def _require_bound(content: bytes, place: Place, is_nan: bool) -> None:
    """Raises ModelError unless the values that are not finite are bounds that results are compared with."""
    if place.node is None:
        [name] = _texts(content, place, TENSOR_NAME) or [""]
        constant = True
    else:
        results = _texts(content, place.node, OUTPUT)
        constant = place.kind is Kind.TENSOR and _texts(content, place.node, OP_TYPE) == ["Constant"]
        name = (results if constant else _texts(content, place.node, NAME) or results or [""])[0]
    if is_nan or not constant or not _operators_that_read(content, name) <= BOUNDS:
        raise ModelError(
            f"{name!r} holds {'NaN' if is_nan else 'an infinite number'}: damaged, or of a training that "
            "diverged; take another file, or an earlier checkpoint"
        )


def _operators_that_read(content: bytes, tensor: str) -> set[str]:
    found = set()
    pending = [Place(Kind.MODEL, 0, len(content))]
    while pending:
        place = pending.pop()
        if place.kind is Kind.NODE and tensor in _texts(content, place, INPUT):
            found.update(_texts(content, place, OP_TYPE))
        for number, wire, begins, ends in fields(content, place.start, place.stop):
            inner = INSIDE[place.kind].get(number, Kind.TENSOR)
            if inner is not Kind.TENSOR and wire == LENGTH_DELIMITED:
                pending.append(Place(inner, begins, ends))
    return found


def _texts(content: bytes, place: Place, field: int) -> list[str]:
    return [
        text(content, begins, ends)
        for number, wire, begins, ends in fields(content, place.start, place.stop)
        if number == field and wire == LENGTH_DELIMITED
    ]
