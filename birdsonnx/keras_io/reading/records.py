"""What a Keras file says of its network, as plain records: layers, their calls, and what refers to what.

Nothing here is Keras', and nothing is ONNX': the parser writes these records, the builder reads them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

OPERATION_KINDS = frozenset(("TFOpLambda", "SlicingOpLambda"))
"""Layers of Keras 2 that stand for one function of TensorFlow."""


@dataclass(frozen=True)
class Reference:
    """A tensor: what one call of a layer gave."""

    layer: str
    call: int
    """Which call of the layer, counted from 0."""
    tensor: int
    """Which of its results, counted from 0."""


@dataclass(frozen=True)
class Call:
    """One use of a layer. Arguments are references, plain values, lists of both, slices, arrays."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """One layer, nested network or operation of a network."""

    name: str
    kind: str
    """Keras' class name."""
    config: Mapping[str, Any]
    generation: int
    """2 or 3: of the Keras that wrote it."""
    calls: tuple[Call, ...] = ()
    network: "Network | None" = None
    """Of a nested model."""
    is_operation: bool = False
    """A function, such as an addition, and no layer; Keras 3 gives both the same class names."""
    shared: int | None = None
    """Number of the object where one layer stands in several models."""

    @property
    def trainable(self) -> bool:
        return self.config.get("trainable", True) is not False

    @property
    def width(self) -> int | None:
        """Units of a Dense, filters of a convolution; None for other layers."""
        value = self.config.get("units", self.config.get("filters"))
        return value if type(value) is int else None


@dataclass(frozen=True)
class Network:
    """A model: its layers in the order of the file, and which tensors go in and come out."""

    name: str
    kind: str
    generation: int
    layers: tuple[Layer, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[Reference, ...]
    trainable: bool = True


@dataclass(frozen=True)
class Variable:
    """An array that a layer holds."""

    role: str
    """What it is to the layer: `kernel`, `bias`, `gamma` …"""
    trainable: bool = True
    part: str = ""
    """The layer inside the layer that holds it, as the attribute of Keras that keeps it is called."""


def leaves(network: Network, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Layer]]:
    """Every layer that is no model, in order, with the names of the models around it and its own."""
    for layer in network.layers:
        full = (*above, layer.name)
        if layer.network is None:
            yield full, layer
        else:
            yield from leaves(layer.network, full)
