"""A network's Keras JSON as the `.onnx` keeps it: compressed by zlib, then base64. ResNet50's 100 KB of JSON
become 4 KB of the file's 94 MB; the way back to Keras then needs nothing but the `.onnx`."""

import base64
import binascii
import json
import zlib
from typing import Any

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading.containers import MAX_JSON_BYTES, decoded


def packed(content: Any) -> str:
    """The decoded JSON of a network, as text; the same JSON gives the same text."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(text: str, where: str) -> Any:
    """The decoded JSON of `packed`; `where` names it in messages.

    Raises:
        ModelError: it is damaged, or says that it is larger than any network.
    """
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(text, validate=True), MAX_JSON_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        raise ModelError(f"{where}: damaged") from None
    if not unpacking.eof:
        raise ModelError(f"{where}: damaged, or too large to be a network")
    return decoded(content, where)
