"""Convolutions, with what follows them: a sum with another value, and an activation.

`dx = dz * w` turned around, `dw = x * dz`, `db = sum(dz)`, where `dz` is the gradient before the activation.
"""

from dataclasses import dataclass
from functools import cached_property

from birdsonnx.onednn import primitives
from birdsonnx.onednn.descriptors import F32, of_any_format
from birdsonnx.onednn.operations.operation import Operation
from birdsonnx.onednn.primitives import Attributes, Function, Window
from birdsonnx.onednn.recording import Gradient, Recorder, Tensor


@dataclass(frozen=True)
class Convolution(Operation):
    """`function(weights * source + bias + added)`."""

    source: str
    kernel: str
    bias: str | None
    result: str
    shape: tuple[int, ...]
    """Of the weights: `[out, in of a group, height, width]`."""
    groups: int
    window: Window
    added: str | None = None
    function: Function | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if self.added is None else (self.source, self.added)

    @property
    def saved(self) -> tuple[str, ...]:
        return (self.source, self.result) if self.function is not None else (self.source,)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)

    @cached_property
    def grouped(self) -> tuple[int, ...]:
        """The shape of the weights as the library has it."""
        if self.groups == 1:
            return self.shape
        return (self.groups, self.shape[0] // self.groups, *self.shape[1:])

    @property
    def is_depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.shape[0]

    def forward(self, to: Recorder) -> None:
        source, library = to.value(self.source), to.library
        weights = of_any_format(to.library, self.grouped, to.kind)
        bias = None if self.bias is None else to.vector(self.bias, self.shape[0])
        attributes = Attributes(library)
        added = None if self.added is None else to.value(self.added)
        second: dict[int, Tensor] = {}
        if added is not None and self.added is not None and to.is_free(self.added):
            result = added
            attributes.then_add_to_result(to.kind)
        else:
            result = to.map(to.shape(self.result))
            if added is not None:
                attributes.then_add(added.descriptor)
                second[primitives.POST_OPERATION | primitives.SECOND] = added
        if self.function is not None:
            attributes.then(self.function)
        primitive = primitives.convolution(
            library,
            source.descriptor,
            weights,
            None if bias is None else bias.descriptor,
            result.descriptor,
            self.window,
            attributes,
        )
        primitives.require_fast(primitive)
        kernel = to.kernel(self.kernel, self.groups, primitive.weights(weights))
        places = {primitives.SOURCE: source, primitives.WEIGHTS: kernel, primitives.BIAS: bias}
        to.step(primitive, {**places, primitives.RESULT: result, **second})
        to.set_value(self.result, result)

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is None:
            return
        if self.function is not None:
            tensor = to.through(self.function, gradient, to.value(self.result))
            gradient = Gradient(tensor, True)
        if to.is_trained(self.kernel) or to.is_trained(self.bias):
            self._to_weights(to, gradient.tensor)
        if to.is_reached(self.source):
            to.add_gradient(self.source, self._to_source(to, gradient.tensor), owned=True)
        if self.added is not None:  # last: nothing here reads its gradient any more
            to.add_gradient(self.added, gradient.tensor, gradient.owned)

    def _to_source(self, to: Recorder, gradient: Tensor) -> Tensor:
        # oneDNN 3.2 takes 9 to 100 times as long for strided depthwise kernels in bfloat16 as in float32
        # (Emerald Rapids); converting the maps takes no longer than the float32 kernel.
        kind = F32 if self.is_depthwise and max(self.window.strides) > 1 else to.kind
        gradient = to.converted(gradient, kind)
        found = to.map(to.shape(self.source), kind)
        weights = of_any_format(to.library, self.grouped, kind)
        primitive = primitives.convolution_data(
            to.library, found.descriptor, weights, gradient.descriptor, self.window
        )
        primitives.require_fast(primitive)
        kernel = to.kernel(self.kernel, self.groups, primitive.weights(weights))
        places = {primitives.D_RESULT: gradient, primitives.WEIGHTS: kernel, primitives.D_SOURCE: found}
        to.step(primitive, places)
        return to.converted(found, to.kind)

    def _to_weights(self, to: Recorder, gradient: Tensor) -> None:
        # Depthwise kernels of 5 x 5 have no kernel of their own for this: 4 times as long.
        kind = F32 if self.is_depthwise and max(self.window.kernel) > 3 else to.kind
        source, gradient = to.converted(to.value(self.source), kind), to.converted(gradient, kind)
        weights = of_any_format(to.library, self.grouped, F32)
        bias = None if self.bias is None else to.vector_gradient(self.bias, self.shape[0])
        primitive = primitives.convolution_weights(
            to.library,
            source.descriptor,
            weights,
            None if bias is None else bias.descriptor,
            gradient.descriptor,
            self.window,
        )
        primitives.require_fast(primitive)
        found = to.room_for(primitive.weight_gradient(weights))
        places = {primitives.SOURCE: source, primitives.D_RESULT: gradient, primitives.D_WEIGHTS: found}
        to.step(primitive, {**places, primitives.D_BIAS: bias})
        if to.is_trained(self.kernel):
            to.keep_kernel(self.kernel, self.groups, found)
        if bias is not None:
            to.keep_vector(self.bias, bias)
