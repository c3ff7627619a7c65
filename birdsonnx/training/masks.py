"""Which values are dropped of which photo in which epoch."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from birdsonnx.model.metadata import Dropout
from birdsonnx.passes.dropout import mask_of
from birdsonnx.training.losses import SMALLEST, Floats

DROPOUT = 2
"""Sets these generators apart from those of the random transforms (`transforms.AUGMENTATION`)."""


@dataclass(frozen=True)
class Masks:
    """Masks of photos: 0 for what is dropped, `1 / (1 - rate)` for what is kept, as Keras has it, so that the
    mean stays what it is without.

    A photo's mask follows from the seed, the epoch, the photo's index and the layer alone, as the random
    transforms do (`transforms.chance_of`): ranks, threads, slices and a resume change nothing.
    """

    dropouts: Sequence[Dropout]
    seed: int

    def of(self, photos: Sequence[int], epoch: int) -> dict[str, Floats]:
        """By graph input, float32 `[len(photos), *shape]`."""
        return {mask_of(dropout): self._mask(dropout, photos, epoch) for dropout in self.dropouts}

    def _mask(self, dropout: Dropout, photos: Sequence[int], epoch: int) -> Floats:
        layer = zlib.crc32(dropout.node.encode())
        drawn = np.empty((len(photos), *dropout.shape), np.float32)
        for row, photo in zip(drawn, photos, strict=True):
            chance = np.random.default_rng([self.seed, epoch, photo, DROPOUT, layer])
            chance.random(dtype=np.float32, out=row)
        np.greater_equal(drawn, dropout.rate, out=drawn)
        drawn /= np.float32(max(1 - dropout.rate, SMALLEST))  # a rate of 1 keeps nothing to divide
        return drawn
