"""A factor and a summand for each channel, as a BatchNorm has them in inference: `y = x by + plus`.

`dx = dy by`, `d by = sum(dy x)`, `d plus = sum(dy)`, the sums over photos and places. oneDNN's normalization
with given statistics, mean 0 and variance 1, is that.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.onednn import primitives
from birdsonnx.onednn.operations.operation import OfOne
from birdsonnx.onednn.recording import Recorder

ZEROS, ONES = "affine/zeros", "affine/ones"
"""Names of constants, which belong to no graph."""


def constants() -> dict[str, npt.NDArray[np.float32]]:
    """Their values, spread over as many channels as there are."""
    return {ZEROS: np.zeros(1, np.float32), ONES: np.ones(1, np.float32)}


@dataclass(frozen=True)
class Affine(OfOne):
    """Per channel; `by` and `plus` name a constant of the graph, or ONES and ZEROS."""

    source: str
    result: str
    by: str = ONES
    plus: str = ZEROS

    @property
    def saved(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(name for name in (self.by, self.plus) if name not in (ONES, ZEROS))

    def forward(self, to: Recorder) -> None:
        source = to.value(self.source)
        result, channels = to.like(source), to.shape(self.source)[0]
        primitive = primitives.normalization(to.library, source.descriptor)
        primitives.require_fast(primitive)
        places = {
            primitives.SOURCE: source,
            primitives.RESULT: result,
            primitives.MEAN: to.vector(ZEROS, channels),
            primitives.VARIANCE: to.vector(ONES, channels),
            primitives.BY: to.vector(self.by, channels),
            primitives.PLUS: to.vector(self.plus, channels),
        }
        to.step(primitive, places)
        to.set_value(self.result, result)
        to.notes[self.result] = primitive, None

    def backward(self, to: Recorder) -> None:
        gradient = to.gradient(self.result)
        if gradient is None:
            return
        forward, _ = to.notes[self.result]
        channels = to.shape(self.source)[0]
        result = gradient.tensor if gradient.owned else to.like(gradient.tensor)
        by, plus = to.vector_gradient(self.by, channels), to.vector_gradient(self.plus, channels)
        primitive = primitives.normalization_backward(to.library, result.descriptor, forward)
        primitives.require_fast(primitive)
        places = {
            primitives.SOURCE: to.value(self.source),
            primitives.MEAN: to.vector(ZEROS, channels),
            primitives.VARIANCE: to.vector(ONES, channels),
            primitives.BY: to.vector(self.by, channels),
            primitives.D_RESULT: gradient.tensor,
            primitives.D_SOURCE: result,
            primitives.D_BY: by,
            primitives.D_PLUS: plus,
        }
        to.step(primitive, places)
        to.keep_vector(self.by, by)
        to.keep_vector(self.plus, plus)
        to.add_gradient(self.source, result, owned=True)
