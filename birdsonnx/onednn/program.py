"""A trunk compiled for batches of a size, and the replicas that run it."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from birdsonnx.model.weight_names import scope_of
from birdsonnx.onednn.descriptors import F32, row_major
from birdsonnx.onednn.execution import Call, Memory, aligned
from birdsonnx.onednn.library import Library, OnednnError
from birdsonnx.onednn.lowering import TrainedTrunk
from birdsonnx.onednn.operations.operation import Operation
from birdsonnx.onednn.recording import Recorded, Recorder, Slot, Space, Tensor, place
from birdsonnx.onednn.weight_forms import Fixed, WeightForms

Floats = npt.NDArray[np.float32]
GRADIENT = "/gradient"
"""After the name of the last value: the slot that its gradient comes from; after that of a given one: where
its gradient goes."""


def compiled(
    library: Library, trained: TrainedTrunk, weights: WeightForms, photos: int, kind: int
) -> Recorded:
    """Primitives and places for one batch size.

    Args:
        library: that computes.
        trained: the trunk.
        weights: gets the formats that its kernels want.
        photos: of a batch.
        kind: the type of activations, BF16 or F32.

    Raises:
        OnednnError: it has no fast kernel for one of the operations.
    """
    result = trained.trunk.result
    to = Recorder(library, photos, kind, trained.values, weights)
    for operation in trained.operations:
        with _naming(operation):
            operation.forward(to)
    outside = row_major(library, (photos, *to.shape(result)), F32)
    to.reordered(to.value(result), Tensor(outside, Slot(result)))
    forward = len(to.steps)
    given = Tensor(outside, Slot(result + GRADIENT))
    gradient = to.reordered(given, to.map(to.shape(result)))
    to.add_gradient(result, gradient, owned=True)
    for operation in reversed(trained.operations):
        with _naming(operation):
            operation.backward(to)
    for name in trained.given:
        found = to.gradient(name)
        if found is not None:
            outside = row_major(library, (photos, *to.shape(name)), F32)
            to.reordered(found.tensor, Tensor(outside, Slot(name + GRADIENT)))
    scratch = max((step.primitive.scratchpad.bytes for step in to.steps), default=0)
    return Recorded(photos, tuple(to.steps), forward, place(to.spaces), scratch)


@contextlib.contextmanager
def _naming(operation: Operation) -> Iterator[None]:
    """Raises OnednnError with the layer that has no kernel."""
    try:
        yield
    except OnednnError as error:
        raise OnednnError(f"layer {scope_of(operation.result)!r}: {error}") from None


class Bound:
    """A program with its memory: not to be run by several threads at once.

    Args:
        library: that computes.
        program: to run.
        arena: at least as many bytes as it needs, which other programs may use between its runs.
        scratch: as well.
    """

    def __init__(
        self,
        library: Library,
        program: Recorded,
        arena: npt.NDArray[np.uint8],
        scratch: npt.NDArray[np.uint8],
    ) -> None:
        self._library = library
        self._slots: dict[str, list[Memory]] = {}
        self._kept = arena, scratch, program  # which holds the memory of weights in their formats
        self._calls: list[Call] = []
        self._forward = program.forward
        for primitive, tensors in program.steps:
            call = Call(library, primitive).with_scratch(scratch)
            for argument, tensor in tensors.items():
                memory = call.bind(argument, tensor.descriptor, _address(tensor, arena))
                if isinstance(tensor.place, Slot):
                    self._slots.setdefault(tensor.place.name, []).append(memory)
            self._calls.append(call)

    @property
    def slots(self) -> frozenset[str]:
        """Names of the memory that `give` may be called for."""
        return frozenset(self._slots)

    def give(self, name: str, values: Floats) -> None:
        """Use this memory for a slot; the caller keeps it alive, and in the layout that was compiled for."""
        for memory in self._slots.get(name, ()):
            memory.move(values.ctypes.data)

    def forward(self) -> None:
        """From the slots of what the trunk reads to that of its result."""
        self._run(self._calls[: self._forward])

    def backward(self) -> None:
        """From the slot of the result's gradient to those of the weights."""
        self._run(self._calls[self._forward :])

    def _run(self, calls: Sequence[Call]) -> None:
        stream = self._library.stream()
        for call in calls:
            call(stream)


def _address(tensor: Tensor, arena: npt.NDArray[np.uint8]) -> int:
    match tensor.place:
        case Space(offset=offset):
            return int(arena.ctypes.data) + offset
        case Fixed(memory=memory):
            return int(memory.ctypes.data)
    return 0


class Replica:
    """Programs for several batch sizes that take turns in one memory, as large as the largest needs."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._arena, self._scratch = aligned(0), aligned(0)
        self._bound: dict[int, Bound] = {}

    def bound(self, program: Recorded) -> Bound:
        if program.arena > self._arena.nbytes or program.scratch > self._scratch.nbytes:
            self._bound.clear()  # they know of the old memory
            self._arena = aligned(max(program.arena, self._arena.nbytes))
            self._scratch = aligned(max(program.scratch, self._scratch.nbytes))
        if program.photos not in self._bound:
            self._bound[program.photos] = Bound(self._library, program, self._arena, self._scratch)
        return self._bound[program.photos]
