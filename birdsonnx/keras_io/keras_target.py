"""Back to Keras: the weights of a birdsonnx `.onnx`, put into the Keras network that it came from.

Which tensor of the graph is which Keras variable, and in which order its values lie there, is written down
nowhere: tf2onnx transposes, reshapes, folds and renames. So the network is converted once more with weights
that can be recognised, and each tensor of that graph tells where its values came from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, TensorProto, numpy_helper

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.tf2onnx_road import conversion
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork
from birdsonnx.keras_io.tf2onnx_road.naming import layer_of
from birdsonnx.model.graph import Array, Graph, opset_of
from birdsonnx.model.model_file import BirdModel

SUFFIXES = (".keras", ".h5")

LOWEST, HIGHEST = 1e-15, 1e30
"""Range of the recognisable values, spaced evenly in their logarithm: 100 million values of one variable
still differ by 8 steps of float32. The conversion takes far smaller ones for 0."""
PROBE_SCALE = 2
"""Of every BatchNorm in the probe: tf2onnx would leave out a factor of 1, and folding by 2 loses no bit."""
APART = 1.01
"""Between the lowest values of two variables."""


@dataclass(frozen=True)
class Place:
    """Where the values of a tensor lie in a Keras variable: `flat tensor[order]` is the flat variable."""

    variable: Any
    order: npt.NDArray[np.int64]


def put_weights(network: KerasNetwork, model: BirdModel) -> None:
    """Give the network the weights of the model.

    A BatchNorm that was folded into a convolution becomes the identity but for a shift (gamma 1, mean 0,
    variance 1 - epsilon; beta is the folded bias), and the convolution gets the folded kernel. One that
    stands alone gets its scale as gamma and its shift as beta.

    Raises:
        ModelError: the model has weights that this network has no variable for.
    """
    fresh = {id(variable): np.array(variable) for variable in recognisable(network)}
    _make_recognisable(network)
    preprocessing, opset = model.metadata.preprocessing, opset_of(model.proto)
    probe, *_ = conversion.graph_of(network, preprocessing, opset, model.where)
    places = _places(probe.graph, recognisable(network))
    placed = {id(place.variable) for place in places.values()}
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            _scale_by(layer, 1)
    for variable in recognisable(network):
        # tf2onnx leaves out what adds 0: the model lacks a tensor, the variable is 0.
        variable.assign(np.zeros(variable.shape) if id(variable) in placed else fresh[id(variable)])

    # tf2onnx chooses anew which of several equal constants it keeps: they are compared without their names.
    constants = {_content(tensor) for tensor in probe.graph.initializer}
    others = _Others(network, model.proto.graph)
    for tensor in model.proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:  # shapes and axes
            continue
        place = places.get(tensor.name)
        value = numpy_helper.to_array(tensor).reshape(-1)
        if place is not None and place.order.size == value.size:
            _assign(place.variable, value[place.order])
        elif _content(tensor) not in constants and not others.assign(tensor, value):
            raise ModelError(
                f"{model.where}: its weight {tensor.name!r} has no place in this Keras network; give the "
                "network that the model was exported from"
            )
    for layer in network.layers:
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()  # it computes with copies of its variables


def save(network: KerasNetwork, path: Path) -> None:
    """Write a complete Keras file, whole or not at all; its suffix says which kind. Raises ArtifactError."""
    with artifacts.replacing(path) as temporary:
        named = temporary.with_suffix(path.suffix.lower())  # Keras tells the kind by the name
        try:
            network.model.save(named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


class _Others:
    """Variables that the probe cannot recognise: by the layer's name and what the graph does with them."""

    def __init__(self, network: KerasNetwork, graph: GraphProto) -> None:
        self._layers = {layer.name: layer for layer in network.layers}
        self._view = Graph(graph)

    def assign(self, tensor: TensorProto, value: Array) -> bool:
        """Whether the tensor is such a variable, which then has its value."""
        for role, variable_value, layer in self._readings(tensor.name, value):
            for variable in layer.weights:
                if variable.name == role and int(np.prod(variable.shape)) == value.size:
                    _assign(variable, variable_value)
                    return True
        return False

    def _readings(self, name: str, value: Array) -> Iterator[tuple[str, Array, Any]]:
        layer, _, role = name.rpartition("/")
        if role == "bias" and layer in self._layers:
            yield role, value, self._layers[layer]
        for node in self._view.consumers.get(name, []):
            scope = layer_of(node.name, self._layers)
            if scope is not None:
                for role, meaning in _meanings(self._layers[scope], node.op_type, value):
                    yield role, meaning, self._layers[scope]


def _meanings(layer: Any, operation: str, value: Array) -> Iterator[tuple[str, Array]]:
    """The variables of a layer that an operation's constant may stand for, and their value."""
    match type(layer).__name__, operation:
        case "BatchNormalization", "Mul":
            yield "gamma", value
            yield "moving_variance", value**-2.0 - layer.epsilon  # where there is no gamma
        case "Normalization", "Add":
            yield "mean", -value
        case "Normalization", "Mul":
            yield "variance", value**-2.0
        case "PReLU", "Mul":
            yield "alpha", -value


def recognisable(network: KerasNetwork) -> list[Any]:
    """The variables that a graph holds as they are, up to their order: all but those that folding a BatchNorm
    changes or adds up, and statistics."""
    return [
        variable
        for layer in network.layers
        for variable in layer.weights
        if _is_recognisable(layer, variable.name)
    ]


def _is_recognisable(layer: Any, variable: str) -> bool:
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return variable == "beta"
    return kind != "Normalization" and not ("Conv" in kind and variable == "bias")


def _make_recognisable(network: KerasNetwork) -> None:
    """Give every variable that can be recognised values of its own, ascending; make the others plain."""
    for number, variable in enumerate(recognisable(network)):
        size = int(np.prod(variable.shape))
        values = np.geomspace(LOWEST * APART**number, HIGHEST, size)
        _assign(variable, values.astype(np.float32))
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            _scale_by(layer, PROBE_SCALE)
        elif "Conv" in type(layer).__name__ and layer.use_bias:
            layer.bias.assign(np.zeros(layer.bias.shape))


def _scale_by(batch_norm: Any, scale: float) -> None:
    """Let a BatchNorm multiply by so much and add its beta alone."""
    shape = batch_norm.moving_variance.shape
    batch_norm.moving_mean.assign(np.zeros(shape))
    variance = 1.0 if batch_norm.scale else scale**-2
    batch_norm.moving_variance.assign(np.full(shape, variance - batch_norm.epsilon))
    if batch_norm.scale:
        batch_norm.gamma.assign(np.full(shape, scale))


def _places(graph: GraphProto, variables: Iterable[Any]) -> dict[str, Place]:
    """By tensor: the variable that has its values."""
    of_size: dict[int, list[Any]] = {}
    for variable in variables:
        of_size.setdefault(int(np.prod(variable.shape)), []).append(variable)
    found = {}
    for tensor in graph.initializer:
        candidates = of_size.get(int(np.prod(tensor.dims)), [])
        if not candidates or tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor).reshape(-1)
        order = np.argsort(value, kind="stable")
        for variable in candidates:
            ascending = np.asarray(variable).reshape(-1)
            # 1 - epsilon + epsilon is 1 up to one step of float32.
            if any(np.allclose(value[order], ascending * by, rtol=2e-7, atol=0) for by in (1, PROBE_SCALE)):
                found[tensor.name] = Place(variable, order)
    return found


def _content(tensor: TensorProto) -> tuple[tuple[int, ...], bytes]:
    value = numpy_helper.to_array(tensor)
    return value.shape, value.tobytes()


def _assign(variable: Any, value: Array) -> None:
    variable.assign(value.reshape(variable.shape))
