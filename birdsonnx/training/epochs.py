"""What is known of each batch and epoch, and which epoch was the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """One step, as it is logged. Loss and gradient norm are those of the whole batch, over all ranks."""

    epoch: int
    number: int
    count: int
    loss: float
    gradient_norm: float
    data_s: float
    compute_s: float


@dataclass(frozen=True)
class Begun:
    """An epoch that is not over: its steps so far, and what its loss is made of."""

    steps: int = 0
    loss_sum: float = 0.0
    divisor_sum: float = 0.0

    def and_step(self, loss: float, divisor: float) -> "Begun":
        """One step more, with the mean loss of its batch."""
        return Begun(self.steps + 1, self.loss_sum + loss * divisor, self.divisor_sum + divisor)

    @property
    def loss(self) -> float:
        """Mean over its photos so far."""
        return self.loss_sum / (self.divisor_sum or 1)


NOT_BEGUN = Begun()


@dataclass(frozen=True)
class Epoch:
    """One epoch, as it is logged and kept in the checkpoint's history."""

    epoch: int
    learning_rate: float
    train_loss: float
    test_loss: float | None = None
    test_accuracy: float | None = None


def best_epoch(history: Sequence[Epoch]) -> int | None:
    """The first epoch with the lowest test loss, or None where there was no finite one."""
    tested = [epoch for epoch in history if epoch.test_loss is not None and np.isfinite(epoch.test_loss)]
    return min(tested, key=lambda epoch: (epoch.test_loss, epoch.epoch)).epoch if tested else None


def stops_early(history: Sequence[Epoch], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no lower test loss."""
    best = best_epoch(history)
    return patience is not None and best is not None and history[-1].epoch - best >= patience
