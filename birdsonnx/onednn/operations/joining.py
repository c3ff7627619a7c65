"""Values beside each other, and values with a margin: gradients go back to where the values came from."""

from dataclasses import dataclass

from birdsonnx.onednn import primitives
from birdsonnx.onednn.operations.operation import OfOne, Operation
from birdsonnx.onednn.recording import Recorder, Tensor


@dataclass(frozen=True)
class Joined(Operation):
    """Channels after channels."""

    parts: tuple[str, ...]
    result: str

    @property
    def sources(self) -> tuple[str, ...]:
        return self.parts

    def forward(self, to: Recorder) -> None:
        parts, result = [to.value(name) for name in self.parts], to.map(to.shape(self.result))
        primitive = primitives.concatenation(
            to.library, [part.descriptor for part in parts], result.descriptor
        )
        places = {primitives.MANY + number: part for number, part in enumerate(parts)}
        to.step(primitive, {**places, primitives.RESULT: result})
        to.set_value(self.result, result)

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is None:
            return
        start = 0
        for name in self.parts:
            channels, *size = to.shape(name)
            if to.is_reached(name):
                part = gradient.tensor.descriptor.part((to.photos, channels, *size), (0, start, 0, 0))
                source = Tensor(part, gradient.tensor.place)
                to.add_gradient(name, to.reordered(source, to.map(to.shape(name))), owned=True)
            start += channels


@dataclass(frozen=True)
class Padded(OfOne):
    """Zeros around each map; `before`: rows above and columns to the left."""

    source: str
    result: str
    before: tuple[int, int]

    def forward(self, to: Recorder) -> None:
        result = to.zeros(to.shape(self.result))
        to.reordered(to.value(self.source), self._inside(to, result))
        to.set_value(self.result, result)

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is not None and to.is_reached(self.source):
            inside = self._inside(to, gradient.tensor)
            to.add_gradient(self.source, to.reordered(inside, to.map(to.shape(self.source))), owned=True)

    def _inside(self, to: Recorder, padded: Tensor) -> Tensor:
        start = (0, 0, *self.before)
        return Tensor(padded.descriptor.part((to.photos, *to.shape(self.source)), start), padded.place)
