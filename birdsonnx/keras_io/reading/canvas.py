"""ONNX nodes under construction: tensors with their layout, nodes with names, weights once each.

Keras has channels last. A graph wants maps, what a convolution makes, with channels first: each tensor here
has its shape as Keras has it, and says how it is stored. Whoever needs the other layout asks for it, and gets
one Transpose for all who ask.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.model.graph import Array

MAX_VALUES = 2**29
"""Of one photo's tensor; beyond 2 GB of float32 it is no network that anybody runs."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    """Of one photo, with the axes in Keras' order."""
    maps: bool = False
    """Whether it is stored with channels first."""

    def __post_init__(self) -> None:
        if math.prod(self.shape) > MAX_VALUES or any(side < 1 for side in self.shape):
            raise Refusal(f"its result would have the shape {list(self.shape)}, which no network can have")

    @property
    def rank(self) -> int:
        """Number of axes, with that of the photos."""
        return len(self.shape) + 1

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of one photo as the graph has it."""
        return (self.shape[-1], *self.shape[:-1]) if self.maps else self.shape

    @property
    def is_point(self) -> bool:
        """Whether all but the channels are 1: then both layouts are the same bytes."""
        return math.prod(self.shape[:-1]) == 1

    def axis(self, axis: int) -> int:
        """Where an axis of Keras', counted with that of the photos, is in the graph."""
        axis %= self.rank
        if not self.maps or axis == 0:
            return axis
        return 1 if axis == self.rank - 1 else axis + 1


class Canvas:
    """The nodes and constants of a graph, in order."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.scope = ""
        """The path of the layer that is being drawn: nodes are called after it."""
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._weights: set[str] = set()
        self._names: dict[str, int] = {}
        self._twins: dict[str, Tensor] = {}
        """The same tensor in the other layout, by name."""
        self._flat: dict[str, Tensor] = {}
        """What a Reshape was made of, by the name of its result."""
        self.padded: dict[str, tuple[Tensor, tuple[int, ...], tuple[int, ...]]] = {}
        """What was padded by zeros, and how much before and behind, by the name of the result."""
        self.zero_margins: set[str] = set()
        """Results of Pads of zeros, and of a Dropout after one."""
        self.batch_norms: dict[str, tuple[int, float]] = {}
        """Axes behind the channels, and epsilon, by the name of the node."""

    # --- Nodes and constants ----------------------------------------------------------------------------

    def node(self, operation: str, *inputs: "str | float | Array", **attributes: Any) -> str:
        """Add a node; numbers and arrays become constants. Returns the name of its result."""
        name = self._free(f"{self.scope}/{operation}")
        names = [self._constant(f"{name}/input_{at}", value) for at, value in enumerate(inputs)]
        self.nodes.append(helper.make_node(operation, names, [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def on(self, operation: str, x: Tensor, *inputs: "str | float | Array", **attributes: Any) -> Tensor:
        """Add a node that maps each value of a tensor by itself."""
        return replace(x, name=self.node(operation, x.name, *inputs, **attributes))

    def weight(self, role: str, value: Array) -> str:
        """A layer's array as a constant of its own; the second call of a layer reads the same."""
        name = f"{self.scope}/{role}"
        if name not in self._weights:
            self._weights.add(name)
            self.constants[name] = np.asarray(value, np.float32)
        elif not np.array_equal(self.constants[name], np.asarray(value, np.float32)):
            raise Refusal(f"it is called on tensors that need its {role} in two forms")
        return name

    def _constant(self, name: str, value: "str | float | Array") -> str:
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        kind = np.int64 if array.dtype.kind in "iub" and isinstance(value, np.ndarray) else np.float32
        self.constants[name] = np.asarray(array, kind)
        return name

    def _free(self, name: str) -> str:
        number = self._names[name] = self._names.get(name, 0) + 1
        return name if number == 1 else self._free(f"{name}_{number}")

    # --- Layouts ----------------------------------------------------------------------------------------

    def as_maps(self, x: Tensor) -> Tensor:
        """The tensor with channels first."""
        return x if x.maps or x.rank < 3 else self._twin(x, (0, x.rank - 1, *range(1, x.rank - 1)))

    def as_keras(self, x: Tensor) -> Tensor:
        """The tensor with channels last."""
        return self._twin(x, (0, *range(2, x.rank), 1)) if x.maps else x

    def _twin(self, x: Tensor, order: Sequence[int]) -> Tensor:
        if x.name not in self._twins:
            other = replace(x, maps=not x.maps)
            name = (
                self._reshaped(x, other.stored)
                if x.is_point
                else self.node("Transpose", x.name, perm=list(order))
            )
            self._twins[x.name] = replace(other, name=name)
            self._twins[name] = x
        return self._twins[x.name]

    def alike(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of one rank in one layout: channels first where any of them has it."""
        if any(x.maps for x in tensors):
            return [self.as_maps(x) for x in tensors]
        return list(tensors)

    def laid(self, value: Any, x: Tensor) -> Array:
        """A constant, in Keras' order, so that it can be combined with a tensor."""
        array = np.asarray(value, np.float32)
        if (
            not np.isfinite(array).all()
            or array.ndim > x.rank
            or (array.ndim == x.rank and array.shape[0] != 1)
        ):
            raise Refusal(
                f"a constant of the shape {list(array.shape)} cannot be combined with {list(x.shape)}"
            )
        if array.ndim == x.rank:
            array = array[0]
        if not x.maps or array.size == 1:
            return array.reshape(()) if array.size == 1 else array
        array = array.reshape(*[1] * (len(x.shape) - array.ndim), *array.shape)
        return np.moveaxis(array, -1, 0)

    # --- Shapes -----------------------------------------------------------------------------------------

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The values of a tensor, read in Keras' order, in another shape."""
        shape = tuple(shape)
        if math.prod(shape) != math.prod(x.shape):
            raise Refusal(f"{list(x.shape)} cannot be reshaped to {list(shape)}")
        if shape == x.shape:
            return x
        plain = x if x.is_point else self.as_keras(x)
        maps = len(shape) > 2 and math.prod(shape[:-1]) == 1
        result = Tensor("", shape, maps)
        source = self._flat.get(plain.name, plain)
        if source.shape == shape and source.is_point:  # there and back again
            return source
        name = self._reshaped(plain, result.stored)
        return replace(result, name=name)

    def _reshaped(self, x: Tensor, stored: Sequence[int]) -> str:
        source = self._flat.get(x.name, x)
        name = self.node("Reshape", source.name, np.array([-1, *stored], np.int64))
        self._flat[name] = source
        return name

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """A tensor with its axes, counted with that of the photos, in another order."""
        if sorted(order) != list(range(x.rank)) or order[0] != 0:
            raise Refusal(f"the axes {list(order)} are no new order of those behind the photos")
        shape = tuple(x.shape[axis - 1] for axis in order[1:])
        if list(order) == list(range(x.rank)):
            return x
        stored = [x.axis(axis) for axis in order]
        if stored == list(range(x.rank)):
            return Tensor(x.name, shape)
        return Tensor(self.node("Transpose", x.name, perm=stored), shape)

    def reduce(self, operation: str, x: Tensor, axes: Sequence[int], keep: bool = True) -> Tensor:
        """ReduceMean and its kind over axes that are counted with that of the photos."""
        axes = sorted({axis % x.rank for axis in axes})
        if 0 in axes:
            raise Refusal("it reduces over the photos of a batch")
        stored = sorted(x.axis(axis) for axis in axes)
        if self.opset >= (13 if operation == "ReduceSum" else 18):
            name = self.node(operation, x.name, np.array(stored, np.int64), keepdims=int(keep))
        else:
            name = self.node(operation, x.name, axes=stored, keepdims=int(keep))
        if keep:
            shape = tuple(1 if at in axes else side for at, side in enumerate(x.shape, 1))
            return Tensor(name, shape, x.maps)
        shape = tuple(side for at, side in enumerate(x.shape, 1) if at not in axes)
        return Tensor(name, shape, x.maps and len(shape) > 1 and x.rank - 1 not in axes)

    def slice(self, x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """Part of a tensor along one axis, counted with that of the photos; `stop` as in Python, for a
        negative step -1 is in front of the first."""
        taken = range(start, stop, step)
        if axis % x.rank == 0:
            raise Refusal("it takes a part of the photos of a batch")
        side = x.shape[axis % x.rank - 1]
        if len(taken) == side and step == 1:
            return x
        shape = list(x.shape)
        shape[axis % x.rank - 1] = len(taken)
        if step < 0:  # a Slice that goes backwards has no gradient
            name = self.node("Gather", x.name, np.array(taken, np.int64), axis=x.axis(axis))
            return Tensor(name, tuple(shape), x.maps)
        bounds = [np.array([value], np.int64) for value in (start, stop, x.axis(axis), step)]
        return Tensor(self.node("Slice", x.name, *bounds), tuple(shape), x.maps)

    def pad(self, x: Tensor, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Tensor:
        """A tensor with margins on all axes behind the photos, in Keras' order."""
        if not any((*before, *behind)):
            return x
        shape = tuple(map(sum, zip(x.shape, before, behind, strict=True)))
        order = [x.axis(axis) for axis in range(1, x.rank)]
        amounts = np.zeros((2, x.rank), np.int64)
        for at, (first, last) in zip(order, zip(before, behind, strict=True), strict=True):
            amounts[:, at] = first, last
        result = Tensor(self.node("Pad", x.name, amounts.reshape(-1), value), shape, x.maps)
        if value == 0:
            self.zero_margins.add(result.name)
        if value == 0 and x.maps and not before[-1] and not behind[-1]:
            self.padded[result.name] = (x, tuple(before[:-1]), tuple(behind[:-1]))
        return result

    # --- Arithmetic -------------------------------------------------------------------------------------

    def binary(self, operation: str, x: Any, y: Any) -> Tensor:
        """Add, Sub, Mul … of two tensors, or of a tensor and a constant in Keras' order."""
        if not isinstance(x, Tensor) and not isinstance(y, Tensor):
            raise Refusal("it combines two constants")
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            if x.rank != y.rank:
                raise Refusal(f"it combines shapes of different rank, {list(x.shape)} and {list(y.shape)}")
            x, y = self.alike([x, y])
            return Tensor(self.node(operation, x.name, y.name), _together(x.shape, y.shape), x.maps)
        tensor = x if isinstance(x, Tensor) else y
        constant = self.laid(y if tensor is x else x, tensor)
        keras = np.asarray(y if tensor is x else x)
        shape = _together(tensor.shape, keras.shape[1:] if keras.ndim == tensor.rank else keras.shape)
        inputs = (tensor.name, constant) if tensor is x else (constant, tensor.name)
        return Tensor(self.node(operation, *inputs), shape, tensor.maps)


def _together(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(np.broadcast_shapes(tuple(one), tuple(other)))
    except ValueError:
        raise Refusal(f"the shapes {list(one)} and {list(other)} do not fit together") from None
