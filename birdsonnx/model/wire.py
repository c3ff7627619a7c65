"""Protobuf's wire format, for who reads a few fields of an ONNX file and imports no onnx (0.6 s of a start).

A file is one message: fields one after the other, each a tag (field number and wire type) and then its value.
What is not asked for is passed over unread.

Source: https://protobuf.dev/programming-guides/encoding.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, overload

VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5
"""Wire types. 3 and 4 began and ended groups, which ONNX never had."""

MOST_BYTES = 2**26
"""Of a text: beyond this it is none of ours, and would only fill the memory."""


class FileBytes:
    """A file's bytes by their places, read as they are asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> bytes: ...
    def __getitem__(self, place: int | slice) -> int | bytes:
        start, stop = (place.start, place.stop) if isinstance(place, slice) else (place, place + 1)
        self._file.seek(start)
        found = self._file.read(stop - start)
        if len(found) != stop - start:
            raise ValueError("the file became shorter")
        return found if isinstance(place, slice) else found[0]


Buffer = bytes | FileBytes


def fields(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message between two places: number, wire type, and where the content starts and
    stops; of a VARINT the value instead of where it starts.

    Raises:
        ValueError: truncated, damaged, or no protobuf message.
    """
    position = start
    while position < end:
        # Most numbers are of one byte: a call for each took 2 us a field instead of 0.7.
        tag, position = buffer[position], position + 1
        if tag >= 0x80:
            tag, position = varint(buffer, position - 1, end)
        kind = tag & 7
        begins = position
        if kind == LENGTH_DELIMITED:
            if position >= end:
                raise ValueError("the file ends inside a number")
            length, begins = buffer[position], position + 1
            if length >= 0x80:
                length, begins = varint(buffer, position, end)
            position = begins + length
        elif kind == VARINT:
            if position < end and buffer[position] < 0x80:
                begins, position = buffer[position], position + 1
            else:
                begins, position = varint(buffer, position, end)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            position += 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind} before byte {position}")
        # Other readers cut a longer tag to 32 bits, and would find another field there.
        if not 8 <= tag < 2**32 or position > end:
            raise ValueError(f"field {tag >> 3} ends at byte {position}, after the end of what holds it")
        yield tag >> 3, kind, begins, position


def varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    """A whole number, and where it stops. It comes in groups of 7 bits, the lowest first; the highest bit of
    a byte says that more come.

    Raises:
        ValueError: it does not end.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise ValueError("the file ends inside a number")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 10 bytes")


def text(buffer: Buffer, start: int, stop: int) -> str:
    """The text between two places.

    Raises:
        ValueError: too long, or not UTF-8.
    """
    if stop - start > MOST_BYTES:
        raise ValueError(f"a text of {stop - start} bytes")
    return buffer[start:stop].decode()
