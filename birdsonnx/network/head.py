"""The split of a network at its head: a frozen backbone that gives features, and the layers to train."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.config import nearest
from birdsonnx.errors import ConfigError
from birdsonnx.network.graph import Graph, drop_unused, set_constant
from birdsonnx.network.metadata import INPUT, OUTPUT, Metadata
from birdsonnx.network.model_file import BirdModel

FEATURES = "features"
HEAD_OPERATIONS = frozenset(("Gemm", "Relu", "LogSoftmax"))

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Split:
    """Two graphs that, one after the other, are the network."""

    backbone: bytes
    """`images` to `features`, float32 `[batch, feature_size]`: a serialized model."""
    head: ModelProto
    """`features` to `log_probs`."""
    weights: Weights
    """What is trained, by name, in the order of the graph."""
    feature_size: int


def trainable_layers(metadata: Metadata, patterns: Sequence[str] | None) -> tuple[str, ...]:
    """The layers to train: those that `patterns` (layer-name globs) match, else the network's own flags.

    Raises:
        ConfigError: a pattern that matches no layer with weights.
    """
    if patterns is None:
        return metadata.trainable
    names = [layer.name for layer in metadata.layers]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"birdsonnx.trainable: {pattern!r} matches no layer with weights{nearest(pattern, names)}"
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def split(model: BirdModel, trainable: Sequence[str]) -> Split:
    """Cut the network in front of its first trainable layer.

    Raises:
        ConfigError: nothing to train, or more than the Dense layers at the network's end.
    """
    proto = model.proto.graph
    graph = Graph(proto)
    kinds = {layer.name: layer.kind for layer in model.metadata.layers}
    beyond = [name for name in trainable if kinds.get(name) != "Dense"]
    if not trainable:
        raise ConfigError(f"{model.where}: no layer of this network is trainable; nothing to train")
    if beyond:
        raise _more_than_the_head(model, beyond)
    weights = {
        name: np.array(graph.constant(name), np.float32)
        for layer in trainable
        for name in (f"{layer}/kernel", f"{layer}/bias")
        if name in graph.constants
    }
    head = _descendants(proto.node, set(weights))
    unknown = [node for node in head if node.op_type not in HEAD_OPERATIONS]
    if unknown:
        raise _more_than_the_head(model, [node.name for node in unknown])
    inside = {name for node in head for name in node.output}
    boundaries = list(
        dict.fromkeys(
            name for node in head for name in node.input if name not in graph.constants and name not in inside
        )
    )
    if len(boundaries) != 1 or boundaries[0] == INPUT:
        raise _more_than_the_head(model, list(trainable))
    [boundary] = boundaries
    first = next(node for node in head if boundary in node.input)
    kernel = graph.constants[first.input[1]]
    return Split(_backbone(model, boundary), _head(model, boundary, head), weights, int(kernel.dims[0]))


def with_weights(model: BirdModel, weights: Mapping[str, npt.NDArray[np.float32]]) -> BirdModel:
    """The same network with these weights in place of its own of the same names."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for name, value in weights.items():
        set_constant(proto.graph, name, value)
    return BirdModel(proto, model.metadata, model.where)


def _more_than_the_head(model: BirdModel, names: Sequence[str]) -> ConfigError:
    dense = [layer.name for layer in model.metadata.layers if layer.kind == "Dense"]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return ConfigError(
        f"{model.where}: {listed} cannot be trained: this version of birdsonnx trains the Dense layers at "
        f'the end of the network; choose them with "birdsonnx": {{"trainable": {json.dumps(dense[-1:])}}}'
    )


def _descendants(nodes: Sequence[NodeProto], tensors: set[str]) -> list[NodeProto]:
    reached = set(tensors)
    found = []
    for node in nodes:
        if reached.intersection(node.input):
            reached.update(node.output)
            found.append(node)
    return found


def _backbone(model: BirdModel, boundary: str) -> bytes:
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    del proto.metadata_props[:], proto.graph.output[:]
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == boundary:
                    names[index] = FEATURES
    proto.graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", None]))
    drop_unused(proto.graph)
    return bytes(proto.SerializeToString(deterministic=True))


def _head(model: BirdModel, boundary: str, nodes: Sequence[NodeProto]) -> ModelProto:
    graph = Graph(model.proto.graph)
    constants = [graph.constants[name] for node in nodes for name in node.input if name in graph.constants]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "head",
            [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", None])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", model.num_classes])],
            constants,
        ),
        opset_imports=list(model.proto.opset_import),
        ir_version=model.proto.ir_version,
    )
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name == boundary:
                node.input[index] = FEATURES
    return proto
