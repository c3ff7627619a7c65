"""All trained weights as one flat float32 buffer, with each weight a view into it.

One buffer makes one Allreduce per step, and optimizers that work in place on one array.
"""

import numpy as np
import numpy.typing as npt

from birdsonnx.network.head import Weights

Flat = npt.NDArray[np.float32]


class FlatWeights:
    """Named arrays inside one flat buffer; writing to either changes both."""

    def __init__(self, like: Weights) -> None:
        sizes = [value.size for value in like.values()]
        self.flat: Flat = np.zeros(sum(sizes), np.float32)
        pieces = np.split(self.flat, np.cumsum(sizes)[:-1])
        self.named: Weights = {
            name: piece.reshape(value.shape)
            for (name, value), piece in zip(like.items(), pieces, strict=True)
        }

    def set(self, values: Weights) -> None:
        """Copy values in, by name."""
        for name, view in self.named.items():
            view[...] = values[name]
