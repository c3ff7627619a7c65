"""What a layer's function gets: its inputs, its config, its arrays, and the canvas to draw on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from birdsonnx.keras_io.reading.canvas import Canvas, Tensor
from birdsonnx.keras_io.reading.options import Options, Refusal
from birdsonnx.keras_io.reading.records import Layer, Variable
from birdsonnx.model.graph import Array
from birdsonnx.model.metadata import Dropout

Config = Mapping[str, Any]


class Unfilled(dict[str, Array]):
    """Arrays of a layer that nobody has yet: whatever it asks for is there, in the shape that it asks for."""

    def asked(self, role: str, shape: tuple[int, ...]) -> Array:
        """Ones that take no memory."""
        self[role] = np.broadcast_to(np.float32(1), shape)
        return self[role]


@dataclass(frozen=True)
class Step:
    """One call of one layer."""

    layer: Layer
    options: Options
    canvas: Canvas
    arguments: tuple[Any, ...]
    """Tensors, lists of them, and plain values."""
    keywords: dict[str, Any]
    arrays: Mapping[str, Array]
    dropouts: list[Dropout]

    @property
    def x(self) -> Tensor:
        """The one tensor that the layer reads."""
        [only] = self.arguments if len(self.arguments) == 1 else [None]
        if isinstance(only, list) and len(only) == 1:
            [only] = only
        if not isinstance(only, Tensor):
            raise Refusal("it must be called on one tensor")
        return only

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that a merging layer reads, as one list."""
        given = self.arguments[0] if len(self.arguments) == 1 else list(self.arguments)
        if not isinstance(given, list) or not all(isinstance(each, Tensor) for each in given) or not given:
            raise Refusal("it must be called on a list of tensors")
        return given

    def maps(self, rank: int) -> Tensor:
        """The one tensor, of this rank, with channels first."""
        x = self.x
        if x.rank != rank:
            raise Refusal(f"it reads a tensor of {rank} axes, batch included, got {[None, *x.shape]}")
        return self.canvas.as_maps(x)

    def array(self, role: str, *shape: int) -> Array:
        """One of the layer's arrays, which must have this shape."""
        if isinstance(self.arrays, Unfilled):
            return self.arrays.asked(role, shape)
        found = self.arrays.get(role)
        if found is None:
            raise Refusal(f"the file has no {role} for it")
        if found.shape != shape:
            raise Refusal(
                f"its {role} has the shape {list(found.shape)} in the file, the network needs {list(shape)}"
            )
        return found

    def weight(self, role: str, shape: tuple[int, ...], form: Callable[[Array], Array] = np.asarray) -> str:
        """One of the layer's arrays as a constant of the graph, in the form that the graph needs."""
        return self.canvas.weight(role, form(self.array(role, *shape)))


@dataclass(frozen=True)
class Kind:
    """How one class of layers is read."""

    draw: Callable[[Step], Any]
    """Adds its nodes; returns the tensor, or the list of tensors, that come out."""
    holds: Callable[[Config], tuple[Variable, ...]] = lambda _: ()
    """Its arrays in Keras' order, by its config."""
    acts_in_training_only: bool = False
    """Whether it does nothing in a prediction, and here nothing in training either."""


def holding(*roles: str, bias: bool = False) -> Callable[[Config], tuple[Variable, ...]]:
    """The arrays of a layer that has these, and a bias where its config wants one."""

    def holds(config: Config) -> tuple[Variable, ...]:
        wanted = bias and config.get("use_bias", True) is not False
        return tuple(Variable(role) for role in (*roles, *(["bias"] if wanted else [])))

    return holds
