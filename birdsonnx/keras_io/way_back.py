"""Back to Keras: the weights of a birdsonnx `.onnx` as the arrays of the network that it came from.

Which number of the graph is which number of which variable, the layers' own functions say: each is drawn once
more with arrays that hold their own places, 0, 1, 2 …, and what it makes of them is where each number went.

A BatchNorm that was folded into a convolution becomes the identity but for a shift (gamma 1, mean 0, variance
1 - epsilon; beta is the folded bias), and the convolution gets the folded kernel. One that stands alone gets
its scale as gamma and its shift as beta.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.keras_io import h5_file, oracle
from birdsonnx.keras_io.reading import KerasFile, building
from birdsonnx.keras_io.reading.arrays import Weights
from birdsonnx.keras_io.reading.canvas import Canvas, Tensor
from birdsonnx.keras_io.reading.parsing import parse
from birdsonnx.keras_io.reading.paths import paths_of
from birdsonnx.keras_io.reading.records import Layer, leaves
from birdsonnx.keras_io.reading.step import Unfilled
from birdsonnx.model.graph import Array, opset_of
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.weight_names import arrays_by_layer
from birdsonnx.passes.uint8_input import NETWORK_INPUT

SUFFIXES = (".keras", ".h5")
BATCH_NORMS = frozenset(("BatchNormalization", "BatchNormalizationV1", "SyncBatchNormalization"))
EXACT = 2**24
"""Whole numbers up to here are exact in float32."""


def returned(model: BirdModel, content: Any, where: str) -> KerasFile:
    """The Keras network of a model, with the model's weights.

    Args:
        model: float32.
        content: decoded JSON of the network that it was exported from, or rmldnn's array of layers.
        where: names the JSON in messages.

    Raises:
        ModelError: the JSON cannot be read, or is of another network.
    """
    network = parse(content, where)
    paths = paths_of(network, where)
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    reader = _Reader(opset_of(model.proto), constants, model.where)
    asked: dict[str, Unfilled] = {path: _Places() for path in paths.values()}
    drawing = building.Drawing(dict(asked), paths, reader.opset, where)
    drawing.canvas = reader
    drawing.network(network, [Tensor(NETWORK_INPUT, building.input_size(network, where), maps=True)])
    found = _Found(reader, _convolutions_before_norms(reader), where)
    weights: Weights = {}
    for full, layer in leaves(network):
        path, held = paths[full], building.variables_of(layer, where)
        if held and path not in weights:
            shapes = {each.role: asked[path][each.role].shape for each in held if each.role in asked[path]}
            weights[path] = found.arrays(path, layer, [each.role for each in held], shapes)
    _all_used(model, found, set(weights))
    return KerasFile(where, network, paths, weights, model.metadata.source, content=content)


def save(file: KerasFile, path: Path) -> None:
    """Write a complete Keras file, whole or not at all; its suffix says which kind.

    A `.h5` is written by ourselves, a `.keras` by Keras.

    Raises:
        ArtifactError: it cannot be written.
        InstallationError: for `.keras` Keras is needed.
        ModelError: Keras cannot build the network.
    """
    if path.suffix.lower() == ".h5":
        h5_file.write(file, path)
        return
    model = oracle.model_like(file)
    from keras.src.saving import saving_lib  # `model.save` takes no open file

    # In memory first, also where Keras would rather put a file beside it: HDF5 does not survive a full disk.
    buffer = io.BytesIO()
    saving_lib.save_model(model, buffer)
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


# --- Where each number went -----------------------------------------------------------------------------


class _Places(Unfilled):
    """Arrays of a layer that hold their own places."""

    def asked(self, role: str, shape: tuple[int, ...]) -> Array:
        self[role] = np.broadcast_to(np.float32(0), shape)  # for its shape
        return np.arange(np.prod(shape, dtype=np.int64), dtype=np.int32).reshape(shape)


class _Reader(Canvas):
    """A canvas that puts a model's constants back to where they came from."""

    def __init__(self, opset: int, constants: Mapping[str, TensorProto], where: str) -> None:
        super().__init__(opset)
        self.where = where
        self.values: dict[str, Array] = {}
        """Flat, in Keras' order, by the name of the constant."""
        self._tensors = constants

    def weight(self, role: str, value: Array) -> str:
        name = f"{self.scope}/{role}"
        if name not in self.values and name in self._tensors:
            held = self.constant(name)
            if held.shape != np.shape(value):
                raise _no_place(self.where, name)
            self.values[name] = _put_back(held, np.asarray(value), role)
        return name

    def constant(self, name: str) -> Array:
        value: Array = numpy_helper.to_array(self._tensors[name])
        return value

    def has(self, name: str) -> bool:
        return name in self._tensors


def _put_back(held: Array, places: Array, role: str) -> Array:
    """A constant's numbers in the order of the array that it was made of. What is no order of an array, as
    the factor of a BatchNorm, stays as it is."""
    if role == "deviation":  # the root of the variance
        places = np.rint(places.astype(np.float64) ** 2)
    order = places.reshape(-1)
    if order.dtype.kind == "f" and order.size > EXACT:
        raise ModelError(f"an array of {order.size:,} numbers is too large to be put back")
    order = order.astype(np.int64, copy=False) if order.dtype.kind == "f" else order
    met = np.zeros(order.size, bool)
    met[order[(order >= 0) & (order < order.size)]] = True
    flat: Array = held.reshape(-1)
    if met.all():
        flat = np.empty(order.size, np.float32)
        flat[order] = held.reshape(-1)
    return flat


def _convolutions_before_norms(canvas: Canvas) -> dict[str, list[str]]:
    """By the path of each BatchNorm: those of the convolutions that it reads."""
    makers = {name: node for node in canvas.nodes for name in node.output}
    found: dict[str, list[str]] = {}
    for node in canvas.nodes:
        maker = makers.get(node.input[0])
        while maker is not None and maker.op_type == "BatchNormalization":  # both are folded into one
            maker = makers.get(maker.input[0])
        if node.op_type == "BatchNormalization" and maker is not None and maker.op_type == "Conv":
            path = maker.input[1].rpartition("/")[0]
            found.setdefault(node.name.rpartition("/")[0], []).append(path)
    return found


# --- What it is to the layers ---------------------------------------------------------------------------


@dataclass
class _Found:
    """What a model's constants are to the layers of a network."""

    reader: _Reader
    before: Mapping[str, list[str]]
    """Convolutions before BatchNorms."""
    where: str
    """Names the network's JSON."""

    def __post_init__(self) -> None:
        self.used: set[str] = set()
        folded = {
            conv
            for norm, convs in self.before.items()
            for conv in convs
            if not self.reader.has(f"{norm}/scale") and not self.reader.has(f"{norm}/moving_mean")
        }
        self._folded = folded
        """Convolutions whose bias holds a BatchNorm's shift."""

    def arrays(
        self, path: str, layer: Layer, roles: list[str], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Array]:
        """A layer's arrays, in Keras' order.

        Raises:
            ModelError: the model has none for it.
        """
        if layer.kind in BATCH_NORMS and not self.reader.has(f"{path}/moving_mean"):
            found = self._batch_norm(path, layer, roles)
        elif layer.kind == "Normalization":
            mean, deviation = (self._value(path, role) for role in ("mean", "deviation"))
            found = {"mean": mean, "variance": deviation**2, "count": np.zeros((), np.int64)}
        elif path in self._folded and "bias" in roles and not self._keeps_its_bias(path):
            found = {role: self._value(path, role) for role in roles if role != "bias"}
            found["bias"] = np.zeros(shapes["bias"], np.float32)
        else:
            found = {role: self._value(path, role) for role in roles}
        return {role: found[role].reshape(shapes.get(role, ())) for role in roles}

    def _value(self, path: str, role: str) -> Array:
        name = f"{path}/{role}"
        if name not in self.reader.values:
            raise self._missing(path, role)
        self.used.add(name)
        return self.reader.values[name]

    def _raw(self, path: str, role: str) -> Array:
        """A constant as the graph has it, one number per channel."""
        name = f"{path}/{role}"
        if not self.reader.has(name):
            raise self._missing(path, role)
        self.used.add(name)
        return self.reader.constant(name).reshape(-1)

    def _keeps_its_bias(self, conv: str) -> bool:
        return any(conv in convs and len(set(convs)) > 1 for convs in self.before.values())

    def _batch_norm(self, path: str, layer: Layer, roles: list[str]) -> dict[str, Array]:
        """`factor x + term`, as gamma, beta and statistics, of which it may lack some."""
        if self.reader.has(f"{path}/scale"):
            factor, term = (self._raw(path, role) for role in ("scale", "shift"))
        else:
            term = self._folded_shift(path, layer, roles)
            factor = np.ones(len(term), np.float32)
        epsilon = float(layer.config.get("epsilon", 1e-3))
        wide = factor.astype(np.float64)
        if "gamma" in roles:
            variance = np.full(len(wide), max(1 - epsilon, 0.0))
        else:
            with np.errstate(divide="ignore"):
                variance = np.where(wide > 0, wide**-2.0, -1) - epsilon
            variance[(variance < 0) & (variance > -1e-5 * epsilon)] = 0
            if not (np.isfinite(variance) & (variance >= 0)).all():
                raise ModelError(
                    f"{self.reader.where}: layer {path!r} has no gamma in {self.where}, and no variance "
                    "gives the factors that it was trained to"
                )
        deviation = np.sqrt(variance + epsilon)
        found = {"gamma": wide * deviation, "moving_variance": variance}
        found["beta"] = term if "beta" in roles else np.zeros(0)
        found["moving_mean"] = np.zeros(len(wide)) if "beta" in roles else -term / wide
        return {role: value.astype(np.float32) for role, value in found.items() if role in roles}

    def _folded_shift(self, path: str, layer: Layer, roles: list[str]) -> Array:
        """The bias of the convolution that it was folded into. Of several, each keeps its own."""
        convs = sorted(set(self.before.get(path, [])))
        biases = [f"{conv}/bias" for conv in convs if self.reader.has(f"{conv}/bias")]
        if not biases:
            raise self._missing(path, roles[-1])
        values = [self.reader.constant(name) for name in biases]
        if self.used.issuperset(biases):  # by the BatchNorm before it
            return np.zeros(len(values[0]), np.float32)
        own = [name in self.reader.values for name in biases]
        if len(values) > 1 and all(own):
            return np.zeros(len(values[0]), np.float32)
        if any(not np.array_equal(value, values[0]) for value in values) or (any(own) and len(values) > 1):
            raise ModelError(
                f"{self.reader.where}: layer {path!r} ({layer.kind}) was folded into {len(values)} "
                "convolutions, which have no one shift"
            )
        self.used.update(biases)
        return values[0]

    def _missing(self, path: str, role: str) -> ModelError:
        return ModelError(
            f"{self.reader.where}: it has no {role} for layer {path!r} of {self.where}; give the network "
            "that the model was exported from"
        )


def _all_used(model: BirdModel, found: _Found, paths: set[str]) -> None:
    """Raises ModelError for a weight of the model that is none of the network."""
    held = arrays_by_layer(model.proto.graph, paths | {layer.name for layer in model.metadata.layers})
    for name in _names(held):
        if name not in found.used:
            raise _no_place(model.where, name)


def _names(held: Mapping[str, list[str]]) -> Iterator[str]:
    return (name for names in held.values() for name in names)


def _no_place(where: str, name: str) -> ModelError:
    return ModelError(
        f"{where}: its weight {name!r} has no place in this Keras network; give the network that the model "
        "was exported from"
    )
