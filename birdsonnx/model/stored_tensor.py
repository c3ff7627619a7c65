"""A tensor as it lies in a model file: of a type that is known, with as many values as it says.

The runtime dies of one that holds less (`axes` of a Squeeze whose 8 bytes are 1), and of types that nobody
writes nobody can say which of their values are numbers.

Source of the numbers: onnx.proto.
"""

import math
from collections.abc import Iterator

import numpy as np

from birdsonnx.errors import ModelError
from birdsonnx.model.wire import EIGHT_BYTES, FOUR_BYTES, LENGTH_DELIMITED, VARINT, fields, text, varint

Span = tuple[int, int]

DIMS, DATA_TYPE, SEGMENT, FLOAT_DATA, INT32_DATA, STRING_DATA, INT64_DATA, NAME = 1, 2, 3, 4, 5, 6, 7, 8
RAW_DATA, DOUBLE_DATA, UINT64_DATA, EXTERNAL_DATA, DATA_LOCATION = 9, 10, 11, 13, 14

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, BOOL = 1, 2, 3, 4, 5, 6, 7, 9
FLOAT16, DOUBLE, UINT32, UINT64, BFLOAT16, UINT4, INT4 = 10, 11, 12, 13, 16, 21, 22

BITS = {
    **dict.fromkeys((UINT4, INT4), 4),
    **dict.fromkeys((UINT8, INT8, BOOL), 8),
    **dict.fromkeys((UINT16, INT16, FLOAT16, BFLOAT16), 16),
    **dict.fromkeys((FLOAT, INT32, UINT32), 32),
    **dict.fromkeys((DOUBLE, INT64, UINT64), 64),
}
"""Of one value, by the types that a model may hold: not texts, complex numbers, and floats of 8 bits or 4."""

TYPED = {
    FLOAT_DATA: (FLOAT,),
    DOUBLE_DATA: (DOUBLE,),
    INT32_DATA: (INT32, INT16, INT8, UINT16, UINT8, BOOL),
    INT64_DATA: (INT64,),
    UINT64_DATA: (UINT32, UINT64),
}
"""The fields of values beside that of raw bytes, and the types that lie there one by one."""

VALUES = (RAW_DATA, STRING_DATA, *TYPED)

MOST_DIMS = 16

ELSEWHERE = "its weights lie in other files; a birdsonnx model holds everything itself"


def values_of(content: bytes, start: int, stop: int) -> tuple[int, int, list[Span]]:
    """The type of the tensor between two places, how many dimensions it has, and where its values lie.

    What is there several times is taken together, as other readers do.

    Raises:
        ModelError: values in another file, of a type that is not known, or more or fewer than it says.
        ValueError: no protobuf message.
    """
    kinds: set[int] = set()
    dims: list[int] = []
    holders: set[int] = set()
    spans: list[Span] = []
    held = 0
    for number, wire, begins, ends in fields(content, start, stop):
        if number == EXTERNAL_DATA or (number == DATA_LOCATION and begins):
            raise ModelError(ELSEWHERE)
        if number == DATA_TYPE and wire == VARINT:
            kinds.add(begins)
        elif number == DIMS:
            dims += integers(content, wire, begins, ends)
        elif number == SEGMENT or number in VALUES:
            holders.add(number)
            held += _held(content, number, wire, begins, ends)
            spans.append((begins, ends))
        elif number == NAME and wire == LENGTH_DELIMITED:
            text(content, begins, ends)
    if len(kinds) != 1 or len(holders) > 1 or (RAW_DATA in holders and len(spans) > 1):
        raise ValueError("no type, or several; values in several forms")
    [kind] = kinds
    [holder] = holders or {RAW_DATA}
    if kind not in BITS or (holder != RAW_DATA and kind not in TYPED.get(holder, ())):
        raise ModelError(
            f"{name_of(content, start, stop)!r} holds values of a type (ONNX' number {kind}), or in a form, "
            "that birdsonnx does not write"
        )
    wanted = math.prod(dims)
    if holder == RAW_DATA:
        wanted = -(-wanted * BITS[kind] // 8)
    if len(dims) > MOST_DIMS or min(dims, default=0) < 0 or held != wanted:
        raise ModelError(
            f"{name_of(content, start, stop)!r} holds more or fewer values than it says: damaged"
        )
    return kind, len(dims), spans


def name_of(content: bytes, start: int, stop: int) -> str:
    """The name of the tensor between two places, or an empty text."""
    names = [
        text(content, begins, ends)
        for number, wire, begins, ends in fields(content, start, stop)
        if number == NAME and wire == LENGTH_DELIMITED
    ]
    return (names or [""])[-1]


def integers(content: bytes, wire: int, start: int, stop: int) -> Iterator[int]:
    """The signed whole numbers of a repeated field, one alone or many packed. Raises ValueError."""
    if wire == VARINT:
        yield _signed(start)
    elif wire != LENGTH_DELIMITED:
        raise ValueError("whole numbers in another form")
    else:
        while start < stop:
            value, start = varint(content, start, stop)
            yield _signed(value)


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _held(content: bytes, number: int, wire: int, start: int, stop: int) -> int:
    """How much a field of values holds: bytes of `raw_data`, values of the others. Raises ValueError."""
    if number == RAW_DATA and wire == LENGTH_DELIMITED:
        return stop - start
    size, alone = {FLOAT_DATA: (4, FOUR_BYTES), DOUBLE_DATA: (8, EIGHT_BYTES)}.get(number, (0, VARINT))
    if wire == alone:
        return 1
    if wire != LENGTH_DELIMITED or (size and (stop - start) % size):
        raise ValueError("values in another form")
    if size:
        return (stop - start) // size
    # Each number ends in the one byte of it that is below 128.
    return int((np.frombuffer(content, np.uint8, stop - start, start) < 0x80).sum())
