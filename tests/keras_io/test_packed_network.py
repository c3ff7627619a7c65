"""The Keras network that an `.onnx` keeps for the way back."""

import base64
import json
import zlib

import pytest

from birdsonnx.errors import ModelError
from birdsonnx.keras_io import architectures
from birdsonnx.keras_io.packed_network import packed, unpacked


def test_what_is_packed_comes_back():
    _, content = architectures.described("ResNet50", 400, "none")
    text = packed(content)
    assert unpacked(text, "x") == json.loads(json.dumps(content))
    assert len(text) < 10_000 < len(json.dumps(content))
    assert packed(content) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no base64!", "x: damaged"),
        (base64.b64encode(b"no zlib").decode(), "x: damaged"),
        (packed({"a": 1})[:-8], "x: damaged"),
        (
            base64.b64encode(zlib.compress(b"no JSON")).decode(),
            "x: its network description is not valid JSON",
        ),
        (base64.b64encode(zlib.compress(bytes(2**26 + 1))).decode(), "too large to be a network"),
    ],
)
def test_what_is_damaged_is_refused(text, said):
    with pytest.raises(ModelError, match=said):
        unpacked(text, "x")
