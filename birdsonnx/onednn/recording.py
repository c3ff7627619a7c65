"""A list of primitives for one batch size, recorded forwards and then backwards, with places for tensors."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from birdsonnx.onednn import primitives
from birdsonnx.onednn.descriptors import F32, Descriptor, channels_last, of_array, row_major
from birdsonnx.onednn.execution import ALIGNMENT
from birdsonnx.onednn.library import Library
from birdsonnx.onednn.primitives import Function, Primitive
from birdsonnx.onednn.weight_forms import Fixed, WeightForms

Shape = tuple[int, ...]


@dataclass(eq=False)
class Space:
    """Bytes of the arena, from the first step that writes them to the last that needs them."""

    bytes: int
    first: int
    last: int
    offset: int = 0


@dataclass(frozen=True)
class Slot:
    """Memory of the caller's, which each run may have elsewhere."""

    name: str


@dataclass(frozen=True)
class Tensor:
    """Values in some place."""

    descriptor: Descriptor
    place: Space | Slot | Fixed


class Step(NamedTuple):
    """One primitive, and its tensors by argument."""

    primitive: Primitive
    tensors: Mapping[int, Tensor]


@dataclass
class Gradient:
    """Of a value: what was found so far. A buffer that is shared with another gradient is not written."""

    tensor: Tensor
    owned: bool


@dataclass(frozen=True)
class Recorded:
    """What a replica needs to run a program."""

    photos: int
    steps: tuple[Step, ...]
    forward: int
    """How many of the steps come before the gradient of the result is needed."""
    arena: int
    """Bytes of all spaces."""
    scratch: int
    """Bytes that one primitive at a time needs beside its tensors."""


@dataclass(frozen=True)
class Values:
    """What is known of a trunk's values, by name."""

    shapes: Mapping[str, Shape]
    """For one photo."""
    reached: Collection[str]
    """Those that depend on a trained weight."""
    readers: Mapping[str, int]
    """How many operations read them."""
    saved: Collection[str]
    """Those that a derivative needs."""


@dataclass
class Recorder:
    """What operations write themselves into.

    Args:
        library: that computes.
        photos: of a batch.
        kind: the type of activations, BF16 or F32.
        values: of the trunk.
        weights: in the kernels' formats.
    """

    library: Library
    photos: int
    kind: int
    values: Values
    weights: WeightForms
    steps: list[Step] = field(default_factory=list)
    spaces: list[Space] = field(default_factory=list)
    notes: dict[str, tuple[Primitive, Tensor | None]] = field(default_factory=dict)
    """What an operation keeps for its way back, by its result."""
    _tensors: dict[str, Tensor] = field(default_factory=dict)
    _gradients: dict[str, Gradient] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    # --- Steps and tensors ----------------------------------------------------------------------------

    def step(self, primitive: Primitive, tensors: Mapping[int, Tensor | None]) -> None:
        given = {argument: tensor for argument, tensor in tensors.items() if tensor is not None}
        now = len(self.steps)
        for tensor in given.values():
            if isinstance(tensor.place, Space):
                tensor.place.first = min(tensor.place.first, now)
                tensor.place.last = now
        self.steps.append(Step(primitive, given))

    def room_for(self, descriptor: Descriptor) -> Tensor:
        """A tensor of the arena."""
        space = Space(descriptor.bytes, len(self.steps), len(self.steps))
        self.spaces.append(space)
        return Tensor(descriptor, space)

    def map(self, shape: Sequence[int], kind: int | None = None) -> Tensor:
        """A tensor of the arena for `[channels, height, width]` of each photo."""
        return self.room_for(channels_last(self.library, (self.photos, *shape), kind or self.kind))

    def like(self, tensor: Tensor, kind: int | None = None) -> Tensor:
        return self.map(tensor.descriptor.shape[1:], kind or tensor.descriptor.kind)

    def zeros(self, shape: Sequence[int]) -> Tensor:
        result = self.map(shape)
        return self.reordered(Tensor(result.descriptor, self.weights.zeros(result.descriptor.bytes)), result)

    def converted(self, tensor: Tensor, kind: int) -> Tensor:
        """The same values in a type."""
        if tensor.descriptor.kind == kind:
            return tensor
        return self.reordered(tensor, self.like(tensor, kind))

    def reordered(self, source: Tensor, result: Tensor) -> Tensor:
        primitive = primitives.reorder(self.library, source.descriptor, result.descriptor)
        self.step(primitive, {primitives.SOURCE: source, primitives.RESULT: result})
        return result

    # --- Values ---------------------------------------------------------------------------------------

    def value(self, name: str) -> Tensor:
        """A value by its name in the graph; what is not computed here is the caller's, float32 as NumPy lays
        it out."""
        if name not in self._tensors:
            shape = (self.photos, *self.shape(name))
            given = Tensor(row_major(self.library, shape, F32), Slot(name))
            self._tensors[name] = self.reordered(given, self.map(self.shape(name)))
        return self._tensors[name]

    def set_value(self, name: str, tensor: Tensor) -> None:
        self._tensors[name] = tensor

    def shape(self, name: str) -> Shape:
        """Of a value, for one photo."""
        return self.values.shapes[name]

    def is_reached(self, name: str) -> bool:
        """Whether a value depends on a trained weight."""
        return name in self.values.reached

    def is_free(self, name: str) -> bool:
        """Whether the one operation that reads a value may write where it lies."""
        return name in self._tensors and self.values.readers[name] == 1 and name not in self.values.saved

    def vector(self, name: str, channels: int) -> Tensor:
        """A constant or weight, a number for each channel."""
        return Tensor(row_major(self.library, (channels,), F32), self.weights.vector(name, channels))

    def kernel(self, name: str, groups: int, wanted: Descriptor) -> Tensor:
        """A convolution's weights in the format of a kernel."""
        return Tensor(wanted, self.weights.form(name, groups, wanted))

    # --- Gradients ------------------------------------------------------------------------------------

    def gradient(self, name: str) -> Gradient | None:
        """All that was found of the gradient of a value, once everything that reads it was walked back."""
        return self._gradients.pop(name, None)

    def add_gradient(self, name: str, tensor: Tensor, owned: bool) -> None:
        """Add to the gradient of a value; `owned`: nothing else reads the tensor from here on."""
        if not self.is_reached(name):
            return
        so_far = self._gradients.get(name)
        if so_far is None:
            self._gradients[name] = Gradient(tensor, owned)
            return
        first, second = (
            (so_far, tensor) if so_far.owned or not owned else (Gradient(tensor, True), so_far.tensor)
        )
        result = first.tensor if first.owned else self.like(tensor)
        self.binary(primitives.ADD, first.tensor, second, result)
        self._gradients[name] = Gradient(result, True)

    def binary(self, algorithm: int, first: Tensor, second: Tensor, result: Tensor) -> Tensor:
        primitive = primitives.binary(
            self.library, algorithm, first.descriptor, second.descriptor, result.descriptor
        )
        places = {primitives.SOURCE: first, primitives.SECOND: second, primitives.RESULT: result}
        self.step(primitive, places)
        return result

    def through(self, function: Function, gradient: Gradient, by: Tensor) -> Tensor:
        """The gradient before an elementwise function; `by` is what its derivative is computed from."""
        primitive = primitives.elementwise_backward(self.library, function, gradient.tensor.descriptor)
        result = gradient.tensor if gradient.owned else self.like(gradient.tensor)
        source = primitives.RESULT if function.by_result else primitives.SOURCE
        places = {source: by, primitives.D_RESULT: gradient.tensor, primitives.D_SOURCE: result}
        self.step(primitive, places)
        return result

    def is_trained(self, name: str | None) -> bool:
        return name in self.weights.trained

    def vector_gradient(self, name: str | None, channels: int) -> Tensor:
        """Where a primitive writes the gradient of a vector, to be given to `keep_vector`: the caller's
        memory, or some of the arena's for what nobody trains, or what another operation wrote before."""
        descriptor = row_major(self.library, (channels,), F32)
        if name is None or not self.is_trained(name) or name in self._written:
            return self.room_for(descriptor)
        return Tensor(descriptor, Slot(name))

    def keep_vector(self, name: str | None, gradient: Tensor) -> None:
        """After the primitive has run."""
        if name is not None and self.is_trained(name):
            if not isinstance(gradient.place, Slot):
                self._add_up(gradient, Tensor(gradient.descriptor, Slot(name)))
            self._written.add(name)

    def keep_kernel(self, name: str, groups: int, gradient: Tensor) -> None:
        """Bring the gradient of a convolution's weights to the caller's memory."""
        target = Tensor(of_array(self.library, self.weights.trained[name], groups), Slot(name))
        if name in self._written:
            self._add_up(gradient, target)
        else:
            self.reordered(gradient, target)
        self._written.add(name)

    def _add_up(self, source: Tensor, target: Tensor) -> None:
        primitive = primitives.reorder(self.library, source.descriptor, target.descriptor, adds=True)
        self.step(primitive, {primitives.SOURCE: source, primitives.RESULT: target})


def place(spaces: Sequence[Space]) -> int:
    """Give every space an offset, so that those that live at the same time do not overlap; returns the bytes
    of all. The largest first, each at the lowest place that is free: activations have few sizes, and take
    turns."""
    placed: list[Space] = []
    end = 0
    for space in sorted(spaces, key=lambda each: (-each.bytes, each.first)):
        offset = 0
        for other in sorted(placed, key=lambda each: each.offset):
            if other.last < space.first or other.first > space.last:
                continue
            if other.offset >= offset + space.bytes:
                break
            offset = max(offset, -(-(other.offset + other.bytes) // ALIGNMENT) * ALIGNMENT)
        space.offset = offset
        placed.append(space)
        end = max(end, offset + space.bytes)
    return end
