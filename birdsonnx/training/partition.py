"""The division of a network before its first trainable layer: a frozen backbone that gives features, and the
part that is trained."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ConfigError
from birdsonnx.model.edits import (
    copy_of,
    drop_unused,
    put_first,
    set_constant,
    set_inputs,
    set_nodes,
    set_outputs,
)
from birdsonnx.model.graph import Graph, ancestors, depending_on, shapes_per_photo
from birdsonnx.model.metadata import INPUT, Dropout, Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.weight_names import scope_of, weights_by_layer
from birdsonnx.model.weights import Weights
from birdsonnx.onednn.trunk import trunk_of
from birdsonnx.passes import dropout
from birdsonnx.passes.gradient_forms.preparing import prepare

FEATURES = "features"

WITHOUT_WEIGHTS = frozenset(
    ("BatchNormalization", "BatchNormalizationV1", "SyncBatchNormalization", "Normalization")
)
"""Classes of layers that may have nothing to train in the graph: folded, or statistics alone."""

LEARNED = frozenset(("Conv", "Gemm", "MatMul"))
"""Operations that cost enough to be worth doing once: those that hold a layer's kernel."""


@dataclass(frozen=True)
class Boundary:
    """The tensors at which a network is divided: what the part before them computes of a photo, and the part
    after them reads."""

    tensors: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of one photo."""

    @property
    def is_photo(self) -> bool:
        """Whether it is the network's input: then there is no frozen part before it."""
        return self.tensors == (INPUT,)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that compute the tensors."""
        return tuple(map(scope_of, self.tensors))

    @property
    def size(self) -> int:
        """Numbers per photo."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


@dataclass(frozen=True)
class Partition:
    """Two graphs that, one after the other, are the network."""

    boundary: Boundary
    backbone: bytes | None
    """`images` to `features`: a serialized model. None where the photos themselves are the boundary."""
    trainable: ModelProto
    """`features` (or `images`) to `log_probs`."""
    weights: Weights
    """What is trained, by name, in the order of the graph."""
    row_shape: tuple[int, ...]
    """Of one photo at the boundary: `(size,)`, or `(height, width, channels)` of the photo itself."""
    row_type: npt.DTypeLike
    """float32, float16 where features are kept so; uint8 of photos."""
    dropouts: tuple[Dropout, ...] = ()
    """Those of the trainable part, which has a Dropout node for each; none acts before it."""

    @property
    def source(self) -> str:
        """The name of the trainable part's input."""
        return INPUT if self.backbone is None else FEATURES


class Network:
    """A model seen as frozen and trained nodes, in forms whose gradients exist.

    Args:
        model: any birdsonnx model; it is not changed.
        trainable: names of the layers to train.
        by_onednn: whether oneDNN computes the trunk, with derivatives of our own, so that it needs no forms
            that only ONNX Runtime's gradients need.

    Raises:
        ConfigError: nothing to train, a layer whose weights are not to be found, or an operation without
            gradient after the first trained weight.
    """

    def __init__(self, model: BirdModel, trainable: Sequence[str], by_onednn: bool = False) -> None:
        self.model = model
        self.trainable = tuple(trainable)
        self.proto = copy_of(model.proto)
        del self.proto.metadata_props[:]
        self.weights = _weights(model, trainable)
        if not self.weights:
            named = f" ({', '.join(trainable[:3])} hold no weights of their own)" if trainable else ""
            raise ConfigError(
                f"{model.where}: no layer of this network is trainable{named}; nothing to train"
            )
        trunk = trunk_of(self.proto, self.weights, shapes_per_photo(self.proto)) if by_onednn else None
        elsewhere = () if trunk is None else trunk.inner
        prepare(self.proto, self.weights, _layer_names(model.metadata), model.where, elsewhere)
        graph = self.proto.graph
        ratios = self._keep_acting_dropouts(model.metadata.dropout)
        self.dropouts = tuple(each for each in model.metadata.dropout if each.node in ratios)
        # What drops values at random begins the trained part, as a weight does: the features after it would
        # be others in each epoch.
        self.trained = _descendants(graph.node, {*self.weights, *ratios.values()})
        self._shapes = shapes_per_photo(self.proto)
        frozen = Graph(graph)
        inside = {name for node in self.trained for name in node.output}
        self.frontier = self._boundary(
            dict.fromkeys(
                name
                for node in self.trained
                for name in node.input
                if name and name not in frozen.constants and name not in inside
            )
        )
        """What the trained part reads of the frozen part."""

    def boundaries(self) -> list[Boundary]:
        """Where the network can be divided, nearest to the trained part first: its frontier, and every single
        tensor before it that alone decides the frontier, back to the photos.

        Where no frozen layer with a kernel comes before the frontier, only the photos.
        """
        photo = self._boundary([INPUT])
        frozen = ancestors(self.proto.graph, self.frontier.tensors)
        if not any(node.op_type in LEARNED for node in frozen):
            return [photo]
        # Walking back in order, a tensor is alone wherever all that is still needed comes down to it.
        needed = set(self.frontier.tensors)
        found = [self.frontier]
        constants = set(Graph(self.proto.graph).constants)
        for node in reversed(frozen):
            if needed.intersection(node.output):
                needed.difference_update(node.output)
                needed.update(name for name in node.input if name and name not in constants)
            if len(needed) == 1 and needed != set(found[-1].tensors):
                found.append(self._boundary(needed))
        known = [each for each in found if self._shapes.keys() >= set(each.tensors)]
        return known if known[-1] == photo else [*known, photo]

    def frozen_sha256(self) -> str:
        """Of the layers and weights that compute the frontier: with the same, two networks have the same
        features at every boundary."""
        frozen = ancestors(self.proto.graph, self.frontier.tensors)
        read = {name for node in frozen for name in node.input}
        digest = hashlib.sha256()
        for node in frozen:
            digest.update(node.SerializeToString(deterministic=True))
        for tensor in self.proto.graph.initializer:  # one by one: together they are as large as the model
            if tensor.name in read:
                digest.update(tensor.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def divide(self, boundary: Boundary, half: bool = False) -> Partition:
        """The two parts at a boundary; with `half` its features are float16."""
        if boundary.is_photo:
            height, width, channels = self.model.input_size
            shape = (height, width, channels)
            return Partition(
                boundary, None, copy_of(self.proto), self.weights, shape, np.uint8, self.dropouts
            )
        return Partition(
            boundary,
            bytes(self._frozen(boundary, half).SerializeToString(deterministic=True)),
            self._after(boundary, half),
            self.weights,
            (boundary.size,),
            np.float16 if half else np.float32,
            self.dropouts,
        )

    def between(self, start: Boundary, end: Boundary) -> ModelProto:
        """The frozen part from one boundary to a later one, float32 tensors on both sides."""
        proto = copy_of(self.proto)
        set_outputs(proto.graph, _values(end))
        if not start.is_photo:
            set_inputs(proto.graph, _values(start))
            _drop_producers(proto, start.tensors)
        drop_unused(proto.graph)
        return proto

    def _frozen(self, boundary: Boundary, half: bool) -> ModelProto:
        """`images` to `features`: the boundary's tensors flattened, one after the other."""
        proto = self.between(self._boundary([INPUT]), boundary)
        graph = proto.graph
        flat = []
        for number, name in enumerate(boundary.tensors):
            flat.append(f"{FEATURES}/flat_{number}")
            graph.node.append(helper.make_node("Flatten", [name], [flat[-1]], name=flat[-1], axis=1))
        last = flat[0]
        if len(flat) > 1:
            last = f"{FEATURES}/joined"
            graph.node.append(helper.make_node("Concat", flat, [last], name=last, axis=1))
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        graph.node.append(helper.make_node("Cast", [last], [FEATURES], name=FEATURES, to=kind))
        set_outputs(graph, [helper.make_tensor_value_info(FEATURES, kind, ["batch", boundary.size])])
        return proto

    def _after(self, boundary: Boundary, half: bool) -> ModelProto:
        """`features` to `log_probs`."""
        proto = copy_of(self.proto)
        graph = proto.graph
        _drop_producers(proto, boundary.tensors)
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        set_inputs(graph, [helper.make_tensor_value_info(FEATURES, kind, ["batch", boundary.size])])
        nodes: list[NodeProto] = []
        flat = FEATURES
        if half:
            flat = f"{FEATURES}/float32"
            nodes.append(helper.make_node("Cast", [FEATURES], [flat], name=flat, to=TensorProto.FLOAT))
        pieces = [flat]
        if len(boundary.tensors) > 1:
            pieces = [f"{FEATURES}/piece_{number}" for number in range(len(boundary.tensors))]
            sizes = np.array([int(np.prod(shape)) for shape in boundary.shapes], np.int64)
            set_constant(graph, f"{FEATURES}/sizes", sizes)
            nodes.append(
                helper.make_node(
                    "Split", [flat, f"{FEATURES}/sizes"], pieces, name=f"{FEATURES}/split", axis=1
                )
            )
        for number, (name, shape) in enumerate(zip(boundary.tensors, boundary.shapes, strict=True)):
            set_constant(graph, f"{FEATURES}/shape_{number}", np.array([-1, *shape], np.int64))
            nodes.append(
                helper.make_node("Reshape", [pieces[number], f"{FEATURES}/shape_{number}"], [name], name=name)
            )
        put_first(graph, nodes)
        drop_unused(graph)
        return proto

    def _keep_acting_dropouts(self, known: Sequence[Dropout]) -> dict[str, str]:
        """Take out the Dropout nodes that do nothing in training; returns the rest, by name, and their
        ratios."""
        graph = self.proto.graph
        names = {each.node for each in known}
        acting = dropout.acting(graph, depending_on(graph, self.weights), LEARNED)
        ratios = {node.name: node.input[1] for node in acting if node.name in names}
        dropout.take_out(graph, keep=ratios)
        return ratios

    def _boundary(self, names: Iterable[str]) -> Boundary:
        names = tuple(names)
        return Boundary(names, tuple(self._shapes.get(name, ()) for name in names))


def _weights(model: BirdModel, trainable: Sequence[str]) -> Weights:
    """What the layers to train hold, in their order.

    A BatchNorm that was folded, and statistics alone, have nothing to train; any other layer must have."""
    graph = Graph(model.proto.graph)
    held = weights_by_layer(graph.proto, {*_layer_names(model.metadata), *trainable})
    for layer in model.metadata.layers:
        if layer.name in trainable and layer.name not in held and layer.kind not in WITHOUT_WEIGHTS:
            raise ConfigError(
                f"{model.where}: layer {layer.name!r} ({layer.kind}) is to be trained, and the graph has no "
                'weights of it; export the network again, or choose other layers with "birdsonnx": '
                '{"trainable": [...]}'
            )
    return {
        name: np.array(graph.constant(name), np.float32)
        for layer in trainable
        for name in held.get(layer, ())
    }


def _layer_names(metadata: Metadata) -> set[str]:
    return {layer.name for layer in metadata.layers}


def _descendants(nodes: Sequence[NodeProto], tensors: set[str]) -> list[NodeProto]:
    reached = set(tensors)
    found = []
    for node in nodes:
        if reached.intersection(node.input):
            reached.update(node.output)
            found.append(node)
    return found


def _values(boundary: Boundary) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in zip(boundary.tensors, boundary.shapes, strict=True)
    ]


def _drop_producers(proto: ModelProto, tensors: Sequence[str]) -> None:
    set_nodes(proto.graph, [node for node in proto.graph.node if not set(node.output).intersection(tensors)])
