"""Sums and products of two values.

`d(a + b)` is `dy` for both; `d(a b)` is `dy b` for a and `dy a` for b. A factor of one number per photo and
channel, as squeeze-and-excite blocks have it, gets the sum over the map: its mean times its size, since
oneDNN's pools are fast and its reductions are not.
"""

from dataclasses import dataclass

from birdsonnx.onednn import primitives
from birdsonnx.onednn.operations.activation import times
from birdsonnx.onednn.operations.operation import OfTwo
from birdsonnx.onednn.primitives import ADD, AVERAGE_OF_ALL, MULTIPLY, Window
from birdsonnx.onednn.recording import Recorder, Tensor


@dataclass(frozen=True)
class Sum(OfTwo):
    """`first + second`, of one shape."""

    first: str
    second: str
    result: str

    def forward(self, to: Recorder) -> None:
        first, second = to.value(self.first), to.value(self.second)
        result = first if to.is_free(self.first) else to.like(first)
        to.set_value(self.result, to.binary(ADD, first, second, result))

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is not None:
            to.add_gradient(self.first, gradient.tensor, owned=False)
            to.add_gradient(self.second, gradient.tensor, owned=False)


@dataclass(frozen=True)
class Product(OfTwo):
    """`first second`; the second one may have one place per channel, `[channels, 1, 1]`."""

    first: str
    second: str
    result: str

    @property
    def saved(self) -> tuple[str, ...]:
        return self.first, self.second

    def forward(self, to: Recorder) -> None:
        first, second = to.value(self.first), to.value(self.second)
        to.set_value(self.result, to.binary(MULTIPLY, first, second, to.like(first)))

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is None:
            return
        first, second = to.value(self.first), to.value(self.second)
        if to.is_reached(self.second):
            product = to.binary(MULTIPLY, gradient.tensor, first, to.like(first))
            if to.shape(self.second) != to.shape(self.first):
                product = _summed_over_map(to, product)
            to.add_gradient(self.second, product, owned=True)
        if to.is_reached(self.first):
            result = gradient.tensor if gradient.owned else to.like(first)
            to.add_gradient(self.first, to.binary(MULTIPLY, gradient.tensor, second, result), owned=True)


def _summed_over_map(to: Recorder, tensor: Tensor) -> Tensor:
    _, channels, *size = tensor.descriptor.shape
    result = to.map((channels, 1, 1))
    window = Window((size[0], size[1]))
    mean = primitives.pooling(to.library, AVERAGE_OF_ALL, tensor.descriptor, result.descriptor, window)
    to.step(mean, {primitives.SOURCE: tensor, primitives.RESULT: result})
    sum_ = primitives.elementwise(to.library, times(float(size[0] * size[1])), result.descriptor)
    to.step(sum_, {primitives.SOURCE: result, primitives.RESULT: result})
    return result
