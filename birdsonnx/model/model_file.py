"""The `.onnx` as product: read it, check that it is ours and keeps the contract, write it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.model.edits import copy_of
from birdsonnx.model.metadata import INPUT, OUTPUT, Metadata


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
        if proto.metadata_props:
            proto = copy_of(proto)
            del proto.metadata_props[:]
        props = ModelProto()
        for key, value in sorted(self.metadata.as_props().items()):
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
        ModelError: missing, truncated, foreign, or with weights in other files.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such model") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    return parse(content, str(path))


def parse(content: bytes, where: str) -> BirdModel:
    """Read the content of a birdsonnx `.onnx`; `where` names it in messages. Raises ModelError."""
    try:
        proto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, TypeError):
        raise ModelError(f"{where}: not a complete ONNX file (truncated, or of another kind)") from None
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(proto.graph)):
        raise ModelError(
            f"{where}: its weights lie in other files; a birdsonnx model holds everything itself"
        )
    metadata = Metadata.from_props({prop.key: prop.value for prop in proto.metadata_props}, where)
    inputs, outputs = list(proto.graph.input), list(proto.graph.output)
    if [value.name for value in inputs] != [INPUT] or [value.name for value in outputs] != [OUTPUT]:
        raise ModelError(f"{where}: it does not have the one input '{INPUT}' and the one output '{OUTPUT}'")
    if len(_dims(inputs[0])) != 4 or len(_dims(outputs[0])) != 2:
        raise ModelError(f"{where}: '{INPUT}' must have 4 dimensions and '{OUTPUT}' 2")
    return BirdModel(proto, metadata, where)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
