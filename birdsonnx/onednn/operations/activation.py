"""Elementwise functions: `dx = f'(x) dy`."""

from dataclasses import dataclass

import numpy as np

from birdsonnx.onednn import primitives
from birdsonnx.onednn.operations.operation import OfOne
from birdsonnx.onednn.primitives import Function
from birdsonnx.onednn.recording import Recorder

_RELU, _TANH, _ELU, _LINEAR, _HARD_SIGMOID, _LOGISTIC = 32, 33, 34, 38, 40, 41
_SWISH, _CLIP, _HARD_SWISH = 44, 47, 52
_RELU_BY_RESULT, _TANH_BY_RESULT, _ELU_BY_RESULT = 256, 257, 258
_LOGISTIC_BY_RESULT, _CLIP_BY_RESULT = 260, 262
"""`dnnl_alg_kind_t`."""

RELU = Function(_RELU, _RELU_BY_RESULT)
SIGMOID = Function(_LOGISTIC, _LOGISTIC_BY_RESULT)
TANH = Function(_TANH, _TANH_BY_RESULT)
SWISH = Function(_SWISH, _SWISH, 1.0)
HARD_SWISH = Function(_HARD_SWISH, _HARD_SWISH, 1 / 6, 0.5)


def leaky_relu(alpha: float) -> Function:
    return Function(_RELU, _RELU_BY_RESULT, alpha)


def elu(alpha: float) -> Function:
    return Function(_ELU, _ELU_BY_RESULT, alpha)


def hard_sigmoid(alpha: float, beta: float) -> Function:
    return Function(_HARD_SIGMOID, _HARD_SIGMOID, alpha, beta)


def clip(low: float, high: float) -> Function:
    # A bound that bfloat16 lacks is rounded in the result, and may seem to lie within.
    by_result = _is_bfloat16(low) and _is_bfloat16(high)
    return Function(_CLIP, _CLIP_BY_RESULT if by_result else _CLIP, low, high)


def times(factor: float) -> Function:
    return Function(_LINEAR, _LINEAR, factor)


def _is_bfloat16(number: float) -> bool:
    """Whether the lower half of a float32's bits is empty."""
    return not int(np.float32(number).view(np.uint32)) & 0xFFFF


@dataclass(frozen=True)
class Activation(OfOne):
    """`function(source)`."""

    source: str
    result: str
    function: Function

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
