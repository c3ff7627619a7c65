"""Elementwise functions: `dx = f'(x) dy`."""

from dataclasses import dataclass

from birdsonnx.onednn import primitives
from birdsonnx.onednn.primitives import Function
from birdsonnx.onednn.recording import Recorder

RELU = Function(0x20, 0x100)
SIGMOID = Function(41, 260)
SWISH = Function(44, 44, 1.0)


@dataclass(frozen=True)
class Activation:
    """`function(source)`."""

    source: str
    result: str
    function: Function
    weights: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def saved(self) -> tuple[str, ...]:
        return (self.result if self.function.by_result else self.source,)

    def forward(self, to: Recorder) -> None:
        source = to.value(self.source)
        result = source if to.is_free(self.source) else to.like(source)
        primitive = primitives.elementwise(to.library, self.function, source.descriptor)
        primitives.require_fast(primitive)
        to.step(primitive, {primitives.SOURCE: source, primitives.RESULT: result})
        to.set_value(self.result, result)

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is not None and to.is_reached(self.source):
            [by] = self.saved
            to.add_gradient(self.source, to.through(self.function, gradient, to.value(by)), owned=True)
