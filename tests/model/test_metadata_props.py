"""One metadata_prop of an ONNX file, read past its weights; the onnx package is the oracle."""

import io
from pathlib import Path

import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from birdsonnx.model import wire
from birdsonnx.model.metadata_props import read_metadata_prop
from tests.tiny import tiny_model

FILE = Path("model.onnx")


def read(content: bytes, key: str = "key") -> str | None:
    FILE.write_bytes(content)
    return read_metadata_prop(FILE, key)


def model(**props: str) -> bytes:
    proto = onnx.ModelProto()
    proto.CopyFrom(tiny_model(3).proto)
    del proto.metadata_props[:]
    for key, value in props.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def test_every_prop_of_a_model():
    content = tiny_model(3).serialized()
    expected = {prop.key: prop.value for prop in onnx.load_model_from_string(content).metadata_props}
    assert len(expected) > 3
    assert {key: read(content, key) for key in expected} == expected
    assert read(content, "none of them") is None


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=9), st.text(max_size=300), max_size=4))
@example({"": ""})
@example({"key": "x" * 20_000})
def test_any_texts(props):
    content = model(**props)
    assert {key: read(content, key) for key in props} == props


def test_the_last_of_equal_keys_counts_as_in_a_dictionary():
    assert read(model(key="first") + onnx.ModelProto(
        metadata_props=[onnx.StringStringEntryProto(key="key", value="second")]
    ).SerializeToString()) == "second"  # fmt: skip


def test_the_weights_are_not_read(monkeypatch):
    """Of a file of 64 MB, a few buffers."""
    proto = onnx.ModelProto(graph=onnx.GraphProto(initializer=[onnx.TensorProto(raw_data=bytes(2**26))]))
    proto.metadata_props.add(key="key", value="value")
    FILE.write_bytes(proto.SerializeToString())
    taken = []

    class Raw(io.FileIO):
        def readinto(self, buffer):
            taken.append(super().readinto(buffer))
            return taken[-1]

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Raw(path)))
    assert read_metadata_prop(FILE, "key") == "value"
    assert sum(taken) < 2**20


def test_every_truncation_is_an_error_or_a_file_without_the_key():
    content = model(key="value")
    for length in range(len(content)):
        if length % 7 and len(content) - length > 40:
            continue  # inside the weights one place is like another
        try:
            found = read(content[:length])
        except ValueError:
            found = None
        assert found is None


def varint(value: int) -> bytes:
    return bytes((value >> shift) & 0x7F | 0x80 for shift in range(0, 63, 7)) + bytes([value >> 63])


ENTRY = bytes([14 << 3 | 2])


@pytest.mark.parametrize(
    "content",
    [
        b"no model at all",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b'{"neural_network": {}}',
        bytes(100),
        b"\xff" * 100,
        ENTRY + varint(2**63),
        ENTRY + varint(2**64 - 1),
        ENTRY + b"\xff" * 11,
        ENTRY + b"\x04\x0a\x7fke",  # a key that ends after its entry
        ENTRY + b"\x02\x0a",
        b"\x0b\x0c",  # a group
        bytes([7 << 3 | 2]) + varint(2**40) + b"graph",
        ENTRY + b"\x04\x0a\x02\xff\xfe",  # a key that is not UTF-8
    ],
)
def test_foreign_and_damaged_files(content):
    with pytest.raises(ValueError):
        read(content)


def test_a_huge_text_is_not_read(monkeypatch):
    monkeypatch.setattr(wire, "MOST_BYTES", 1000)
    assert read(model(key="x" * 1000)) == "x" * 1000
    with pytest.raises(ValueError, match="a text of 1001 bytes"):
        read(model(key="x" * 1001))


def test_other_kinds_of_fields_are_passed_over():
    plain = bytes([1 << 3]) + varint(8) + bytes([90 << 3 & 0x7F | 1 | 0x80, 90 >> 4]) + bytes(8)
    assert read(plain + bytes([9 << 3 | 5]) + bytes(4) + model(key="value")) == "value"


def test_an_empty_file_holds_nothing():
    assert read(b"") is None


def test_a_missing_file():
    with pytest.raises(OSError):
        read_metadata_prop(Path("nothing.onnx"), "key")
