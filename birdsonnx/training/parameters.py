"""All trained weights as one flat float32 buffer, with each weight a view into it.

One buffer makes one Allreduce per step, and optimizers that work in place on one array.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from birdsonnx.model.weights import Weights

Flat = npt.NDArray[np.float32]


class FlatWeights:
    """Named arrays inside one flat buffer; writing to either changes both."""

    def __init__(self, like: Weights) -> None:
        ends = np.cumsum([value.size for value in like.values()]).tolist()
        self.spans = [slice(start, end) for start, end in pairwise([0, *ends])]
        """Where each tensor lies in `flat`, in the order of the names."""
        self.flat: Flat = np.zeros(ends[-1], np.float32)
        self._shapes = {name: value.shape for name, value in like.items()}
        self.named: Weights = self.views_of(self.flat)

    def views_of(self, buffer: Flat) -> Weights:
        """The same arrays inside another buffer, of this size at least."""
        return {
            name: buffer[span].reshape(shape)
            for (name, shape), span in zip(self._shapes.items(), self.spans, strict=True)
        }

    def set(self, values: Weights) -> None:
        """Copy values in, by name."""
        for name, view in self.named.items():
            view[...] = values[name]
