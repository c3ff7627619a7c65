"""What a model file may hold: the graph itself, all its weights in it, and each of them a number.

The runtime would read any file that a tensor names, wherever in the model that tensor is, and run operators
of whoever it knows; and it dies of tensors that hold less than they say, and of windows without size. So the
file is walked before the runtime or the onnx package sees it, by the few fields that say such things, on the
bytes themselves: messages that other readers would put together are judged one by one, and what no network of
ours has (functions, graphs inside nodes, sparse tensors, training information) is refused whole.

Source of the numbers: onnx.proto.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from birdsonnx.errors import ModelError
from birdsonnx.model.stored_tensor import BFLOAT16, DOUBLE, FLOAT, FLOAT16, integers, name_of, values_of
from birdsonnx.model.wire import LENGTH_DELIMITED, VARINT, fields, text

BOUNDS = frozenset(("Clip", "Max", "Min", "Pad", "Where"))
"""Operators that may read an infinite constant: none of its values need ever come out."""

CONVOLUTIONS = frozenset(("Conv", "ConvTranspose"))
LEAST_OF_A_KERNEL = 3
"""Dimensions: the runtime reads beyond the end of those of a smaller one."""

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
    Kind.ATTRIBUTE: {5: Kind.TENSOR, 10: Kind.TENSOR},
}
"""Which fields hold which messages. Every other one that can hold a tensor is in `REFUSED`."""

REFUSED: dict[Kind, dict[int, str]] = {
    Kind.MODEL: {
        20: "it holds training information, and birdsonnx writes none",
        25: "it holds functions of its own, and birdsonnx writes none",
    },
    Kind.GRAPH: {15: "it holds sparse weights, and birdsonnx writes none"},
    Kind.NODE: {},
    Kind.ATTRIBUTE: {
        **dict.fromkeys((6, 11), "it holds graphs inside nodes (If, Loop, Scan), and birdsonnx writes none"),
        21: "it holds arguments of a function, and birdsonnx writes none",
        **dict.fromkeys((22, 23), "it holds sparse tensors, and birdsonnx writes none"),
    },
}

IR_VERSION, OPSET_IMPORT = 1, 8
"""Of a model."""
OPSET_DOMAIN, OPSET_VERSION = 1, 2
"""Of an entry of those."""
GRAPH_NAME, VALUE_INFOS, VALUE_NAME = 2, (11, 12, 13), 1
"""Of a graph; of one of its inputs, outputs or other values."""
INPUT, OUTPUT, NAME, OP_TYPE, DOMAIN = 1, 2, 3, 4, 7
"""Of a node."""
ATTRIBUTE_NAME, FLOAT_VALUE, INT_VALUE, ONE_TENSOR, FLOAT_VALUES, INT_VALUES = 1, 2, 3, 5, 7, 8
"""Of an attribute."""

TEXTS: dict[Kind, tuple[int, ...]] = {
    Kind.MODEL: (),
    Kind.GRAPH: (GRAPH_NAME,),
    Kind.NODE: (INPUT, OUTPUT, NAME, OP_TYPE, DOMAIN),
    Kind.ATTRIBUTE: (ATTRIBUTE_NAME,),
}
"""Names, which must be UTF-8: Python cannot read others."""

FLOATS: dict[int, np.dtype[Any]] = {
    FLOAT: np.dtype("<f4"),
    FLOAT16: np.dtype("<f2"),
    DOUBLE: np.dtype("<f8"),
    BFLOAT16: np.dtype("<u2"),
}
"""The data types that can hold what is no number, as NumPy reads them."""

OUR_DOMAINS = ("", "ai.onnx")
"""Names of ONNX's own operators."""
OPSETS, IR_VERSIONS = range(13, 22), range(3, 11)
"""From what export writes to what the runtime reads."""

WIDEST = 8192
"""Pixels of a window, its steps and its borders: as many as a network's photo may have."""
WINDOWS = {
    **dict.fromkeys(("strides", "dilations", "kernel_shape"), range(1, WIDEST + 1)),
    **dict.fromkeys(("pads", "output_padding"), range(WIDEST + 1)),
    "group": range(1, 2**20),
}
"""Attributes whose values the runtime divides by, and makes addresses of, without a look at them."""


class Place(NamedTuple):
    """Where a message lies in the file."""

    kind: Kind
    start: int
    stop: int
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
        ModelError: truncated or of another kind; weights in other files, NaN, infinite, or more or fewer than
            the file says; operators of others; functions, sparse tensors; windows that cannot be.
    """
    walk = _Walk(content)
    try:
        walk.through()
        readers = _operators_by_input(content) if walk.not_finite else {}
        for place, is_nan in walk.not_finite:
            _require_bound(content, place, is_nan, readers)
    except ValueError:
        raise incomplete(where) from None
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def incomplete(where: str) -> ModelError:
    """The refusal of what is no ONNX file."""
    return ModelError(f"{where}: not a complete ONNX file (truncated, or of another kind)")


def require_versions(content: bytes, where: str) -> None:
    """Raises ModelError for a model of ours whose operators are of no version, of several, or of one that the
    runtime does not read."""
    try:
        ir_version, opsets = _versions(content)
    except ValueError:
        raise incomplete(where) from None
    if len(opsets) != 1 or opsets[0] not in OPSETS or ir_version not in IR_VERSIONS:
        said = ", ".join(map(str, opsets)) or "none"
        raise ModelError(
            f"{where}: its opset is {said} and its IR version {ir_version}; what can be read are opsets "
            f"{OPSETS[0]} to {OPSETS[-1]} and IR versions {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}"
        )


def _versions(content: bytes) -> tuple[int, list[int]]:
    """A model's IR version, and those of the sets of ONNX's own operators that it names."""
    ir_version = 0
    opsets = []
    for number, wire, begins, ends in fields(content, 0, len(content)):
        if number == IR_VERSION and wire == VARINT:
            ir_version = begins
        elif number == OPSET_IMPORT and wire == LENGTH_DELIMITED:
            domain, version = b"", 0
            for part, form, start, stop in fields(content, begins, ends):
                if part == OPSET_DOMAIN and form == LENGTH_DELIMITED:
                    domain = content[start:stop]
                elif part == OPSET_VERSION and form == VARINT:
                    version = start
            if domain.decode(errors="replace") in OUR_DOMAINS:
                opsets.append(version)
    return ir_version, opsets


class _Walk:
    """Once through all messages of a model that can hold a tensor."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._seen: set[bytes] = set()
        """Attributes: strides, pads and axes are the same bytes over and over, a third of all fields."""
        self.not_finite: list[tuple[Place, bool]] = []
        """Tensors and attributes that hold what is not finite, and whether it is NaN."""
        self._flat: set[str] = set()
        """Weights that no convolution can have."""
        self._kernels: set[str] = set()
        """Second inputs of convolutions."""

    def through(self) -> None:
        """Walk. Raises ModelError, and ValueError for what is no protobuf message."""
        pending = [Place(Kind.MODEL, 0, len(self._content))]
        while pending:
            place = pending.pop()
            if place.kind is Kind.TENSOR:
                self._tensor(place)
            else:
                pending += self._inside(place)
        for name in self._kernels & self._flat:
            raise ModelError(f"{name!r} has too few dimensions for the kernel of a convolution")

    def _inside(self, place: Place) -> list[Place]:
        """The messages in one, whose own fields are judged."""
        kind, start, stop, node = place
        inside, refused = INSIDE[kind], REFUSED[kind]
        if kind is Kind.ATTRIBUTE:
            attribute = self._content[start:stop]
            if attribute in self._seen:
                return []
            _require_windows(self._content, place)
        found = []
        for number, wire, begins, ends in fields(self._content, start, stop):
            if number in inside and wire == LENGTH_DELIMITED:
                holder = inside[number]
                owner = None if holder is Kind.GRAPH else place if kind is Kind.NODE else node
                found.append(Place(holder, begins, ends, owner))
            elif number in refused:
                raise ModelError(refused[number])
            elif wire == LENGTH_DELIMITED and number in TEXTS[kind]:
                words = text(self._content, begins, ends)
                if kind is Kind.NODE and number == DOMAIN:
                    _require_ours(words)
            elif kind is Kind.GRAPH and wire == LENGTH_DELIMITED and number in VALUE_INFOS:
                _texts(self._content, Place(kind, begins, ends), VALUE_NAME)
            elif kind is Kind.ATTRIBUTE and number in (FLOAT_VALUE, FLOAT_VALUES) and wire != VARINT:
                self._look_at(place, FLOAT, begins, ends)
        if kind is Kind.ATTRIBUTE and not found:
            self._seen.add(attribute)
        if kind is Kind.NODE and not CONVOLUTIONS.isdisjoint(_texts(self._content, place, OP_TYPE)):
            self._kernels.update(_texts(self._content, place, INPUT)[1:2])
        return found

    def _tensor(self, place: Place) -> None:
        kind, rank, spans = values_of(self._content, place.start, place.stop)
        if place.node is None and rank < LEAST_OF_A_KERNEL:
            self._flat.add(name_of(self._content, place.start, place.stop))
        if kind in FLOATS:
            for begins, ends in spans:
                self._look_at(place, kind, begins, ends)

    def _look_at(self, place: Place, stored: int, start: int, stop: int) -> None:
        """Note a tensor or attribute some of whose values are not finite."""
        kind = FLOATS[stored]
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


def _require_windows(content: bytes, place: Place) -> None:
    """Raises ModelError for an attribute of windows (strides, pads …) with a value that none can have, and
    ValueError for any with two tensors."""
    [name] = _texts(content, place, ATTRIBUTE_NAME)[-1:] or [""]
    tensors = 0
    for number, wire, begins, ends in fields(content, place.start, place.stop):
        tensors += number == ONE_TENSOR
        if number in (INT_VALUE, INT_VALUES) and name in WINDOWS:
            for value in integers(content, wire, begins, ends):
                if value not in WINDOWS[name]:
                    raise ModelError(f"it holds {name} of {value}, which no network can have")
    if tensors > 1:
        raise ValueError("two tensors, which other readers would make one of")


def _require_bound(content: bytes, place: Place, is_nan: bool, readers: Mapping[str, set[str]]) -> None:
    """Raises ModelError unless the values that are not finite are bounds that results are compared with.
    `readers` are the operators that read each tensor."""
    if place.node is None:
        name = name_of(content, place.start, place.stop)
        constant = True
    else:
        results = _texts(content, place.node, OUTPUT)
        constant = place.kind is Kind.TENSOR and _texts(content, place.node, OP_TYPE) == ["Constant"]
        name = (results if constant else _texts(content, place.node, NAME) or results or [""])[0]
    if is_nan or not constant or not readers.get(name, set()) <= BOUNDS:
        raise ModelError(
            f"{name!r} holds {'NaN' if is_nan else 'an infinite number'}: damaged, or of a training that "
            "diverged; take another file, or an earlier checkpoint"
        )


def _operators_by_input(content: bytes) -> dict[str, set[str]]:
    """Which operators read each tensor."""
    found: dict[str, set[str]] = {}
    pending = [Place(Kind.MODEL, 0, len(content))]
    while pending:
        place = pending.pop()
        if place.kind is Kind.NODE:
            for name in _texts(content, place, INPUT):
                found.setdefault(name, set()).update(_texts(content, place, OP_TYPE))
        for number, wire, begins, ends in fields(content, place.start, place.stop):
            inner = INSIDE[place.kind].get(number)
            if inner in (Kind.GRAPH, Kind.NODE) and wire == LENGTH_DELIMITED:
                pending.append(Place(inner, begins, ends))
    return found


def _texts(content: bytes, place: Place, field: int) -> list[str]:
    return [
        text(content, begins, ends)
        for number, wire, begins, ends in fields(content, place.start, place.stop)
        if number == field and wire == LENGTH_DELIMITED
    ]
