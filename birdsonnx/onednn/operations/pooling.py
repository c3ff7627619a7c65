"""Pools. The gradient of a largest value goes to where it was found; that of a mean is spread evenly."""

from dataclasses import dataclass

from birdsonnx.onednn import primitives
from birdsonnx.onednn.operations.operation import OfOne
from birdsonnx.onednn.primitives import MAX, Window
from birdsonnx.onednn.recording import Recorder, Tensor


@dataclass(frozen=True)
class Pool(OfOne):
    """`algorithm` is MAX, AVERAGE_OF_ALL or AVERAGE_OF_REAL of `primitives`."""

    source: str
    result: str
    algorithm: int
    window: Window

    def forward(self, to: Recorder) -> None:
        source, result = to.value(self.source), to.map(to.shape(self.result))
        primitive = primitives.pooling(
            to.library, self.algorithm, source.descriptor, result.descriptor, self.window
        )
        primitives.require_fast(primitive)
        found = self._found(to, primitive)
        places = {primitives.SOURCE: source, primitives.RESULT: result, primitives.WORKSPACE: found}
        to.step(primitive, places)
        to.set_value(self.result, result)
        to.notes[self.result] = primitive, found

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is None or not to.is_reached(self.source):
            return
        forward, found = to.notes[self.result]
        result = to.map(to.shape(self.source))
        primitive = primitives.pooling_backward(
            to.library, self.algorithm, result.descriptor, gradient.tensor.descriptor, self.window, forward
        )
        primitives.require_fast(primitive)
        places = {
            primitives.D_RESULT: gradient.tensor,
            primitives.D_SOURCE: result,
            primitives.WORKSPACE: found,
        }
        to.step(primitive, places)
        to.add_gradient(self.source, result, owned=True)

    def _found(self, to: Recorder, primitive: primitives.Primitive) -> Tensor | None:
        """Where the largest values were."""
        return to.room_for(primitive.workspace) if self.algorithm == MAX else None
