"""The `.onnx` as product: read it, check that it is ours and keeps the contract, write it."""

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from birdsonnx import artifacts
from birdsonnx.model.contract import Value, require_contract
from birdsonnx.model.edits import copy_of
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.image_metadata import denote, image_props, is_denoted
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.soundness import incomplete, require_sound, require_versions
from birdsonnx.model.validity import require_valid

DATA_TYPES = {TensorProto.UINT8: "tensor(uint8)", TensorProto.FLOAT: "tensor(float)"}


@dataclass(frozen=True)
class BirdModel:
    """A graph with the contract's input and output, and what it knows about itself."""

    proto: ModelProto
    metadata: Metadata
    where: str
    """The file's name, for messages."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = _dims(self.proto.graph.input[0])[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        return _dims(self.proto.graph.output[0])[1]

    def serialized(self) -> bytes:
        """The file's content; the same model gives the same bytes."""
        proto = self.proto
        if proto.metadata_props or not is_denoted(proto.graph):
            proto = copy_of(proto)
            del proto.metadata_props[:]
            denote(proto.graph)  # files of earlier versions are not
        props = ModelProto()
        texts = {**self.metadata.as_props(), **image_props(self.input_size[2])}
        for key, value in sorted(texts.items()):
            props.metadata_props.add(key=key, value=value)
        # One message after another is their union: no copy of the weights is needed to add a few texts.
        return bytes(
            proto.SerializeToString(deterministic=True) + props.SerializeToString(deterministic=True)
        )

    def save(self, path: Path) -> bytes:
        """Write the file, whole or not at all; returns its content. Raises ArtifactError."""
        content = self.serialized()
        artifacts.write_bytes(path, content)
        return content


def load(path: Path) -> BirdModel:
    """Read a birdsonnx `.onnx`.

    Raises:
        ModelError: missing, truncated, foreign, damaged, or with weights in other files.
    """
    return parse(read_bytes(path), str(path))


def parse(content: bytes, where: str) -> BirdModel:
    """Read the content of a birdsonnx `.onnx`; `where` names it in messages. Raises ModelError."""
    require_sound(content, where)
    metadata = Metadata.of_file(content, where)
    require_versions(content, where)
    try:
        proto = onnx.load_model_from_string(content)
        inputs, outputs = (
            [_value(each) for each in side] for side in (proto.graph.input, proto.graph.output)
        )
    except (DecodeError, ValueError, TypeError):
        raise incomplete(where) from None
    require_contract(inputs, outputs, metadata, where)
    require_valid(proto, where)
    return BirdModel(proto, metadata, where)


def _value(value: onnx.ValueInfoProto) -> Value:
    kind = DATA_TYPES.get(value.type.tensor_type.elem_type, "of another type")
    return Value(value.name, kind, tuple(size or None for size in _dims(value)))


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
