"""The training loop."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdsonnx.config import Settings
from birdsonnx.errors import TrainingError
from birdsonnx.runtime.ranks import Ranks, sum_as_float64
from birdsonnx.training.features import Features
from birdsonnx.training.gradients import HeadGradients
from birdsonnx.training.optimizers import Optimizer
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.schedules import learning_rate

LogProbs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Dataset:
    """Features and labels (int64 `[photos]`) of a set of photos."""

    features: Features
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


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
class Epoch:
    """One epoch, as it is logged and kept in the checkpoint's history."""

    epoch: int
    learning_rate: float
    train_loss: float
    test_loss: float | None = None
    test_accuracy: float | None = None


class Listener(Protocol):
    """Who wants to know."""

    def on_batch(self, batch: Batch) -> None: ...
    def on_epoch(self, epoch: Epoch) -> None: ...


@dataclass
class Training:
    """Everything the loop works on."""

    settings: Settings
    ranks: Ranks
    gradients: HeadGradients
    weights: FlatWeights
    optimizer: Optimizer
    train: Dataset
    test: Dataset | None
    listener: Listener
    keep: Callable[[Epoch], None]
    """Called after every epoch, to write checkpoints."""
    keep_predictions: Callable[[int, Iterator[tuple[range, LogProbs]]], None] | None = None
    """Called with the epoch and this rank's test predictions, where they are to be kept."""

    def run(self, first_epoch: int) -> None:
        """Train from `first_epoch` to the last.

        Raises:
            TrainingError: a loss or gradient that is not finite; the checkpoints so far are intact.
        """
        for number in range(first_epoch, self.settings.num_epochs + 1):
            rate = learning_rate(self.settings.optimizer, number)
            epoch = Epoch(number, rate, self._train(number, rate), *self._evaluate(number))
            self.listener.on_epoch(epoch)
            self.keep(epoch)

    def _train(self, epoch: int, rate: float) -> float:
        # The order depends on nothing but the seed and the epoch: not on the ranks, not on what ran before.
        order = np.random.default_rng([self.settings.birdsonnx.seed, epoch]).permutation(len(self.train))
        batches = np.split(
            order, range(self.settings.data.batch_size, len(order), self.settings.data.batch_size)
        )
        total = np.zeros(self.weights.flat.size + 1, np.float32)  # the gradient, and the loss behind it
        gradient = FlatWeights(self.weights.named)
        loss_sum = 0.0
        for number, batch in enumerate(batches, 1):
            started = time.perf_counter()
            share = self.ranks.share(len(batch))
            mine = batch[share.start : share.stop]
            features, labels = self.train.features.rows(mine), self.train.labels[mine]
            loaded = time.perf_counter()

            total[-1], gradients = self.gradients(features, labels, self.weights.named)
            gradient.set(gradients)
            total[:-1] = gradient.flat
            self.ranks.add_up(total)
            total /= np.float32(len(batch))
            loss, norm = float(total[-1]), float(np.linalg.norm(total[:-1]))
            if not np.isfinite(loss + norm):
                raise self._not_finite(epoch, number, loss, norm)
            self.optimizer.step(self.weights.flat, total[:-1], rate)

            loss_sum += loss * len(batch)
            done = time.perf_counter()
            self.listener.on_batch(
                Batch(epoch, number, len(batches), loss, norm, loaded - started, done - loaded)
            )
        return loss_sum / len(order)

    def _evaluate(self, epoch: int) -> tuple[float | None, float | None]:
        if self.test is None:
            return None, None
        loss = correct = 0.0
        predictions: list[tuple[range, LogProbs]] = []
        share = self.ranks.share(len(self.test))
        step = -(-self.settings.data.test_batch_size // self.ranks.size)
        for start in range(share.start, share.stop, step):
            rows = np.arange(start, min(start + step, share.stop))
            log_probs = self.gradients.log_probs(self.test.features.rows(rows), self.weights.named)
            labels = self.test.labels[rows]
            loss -= float(log_probs[np.arange(len(rows)), labels].sum(dtype=np.float64))
            correct += int((log_probs.argmax(axis=1) == labels).sum())
            if self.keep_predictions is not None:
                predictions.append((range(start, start + len(rows)), log_probs))
        loss, correct = sum_as_float64(self.ranks, loss, correct)
        if self.keep_predictions is not None:
            self.keep_predictions(epoch, iter(predictions))
        return loss / len(self.test), correct / len(self.test)

    @staticmethod
    def _not_finite(epoch: int, batch: int, loss: float, norm: float) -> TrainingError:
        error = TrainingError(
            f"epoch {epoch}, batch {batch}: the loss is {loss:g} and the gradient norm {norm:g}; training "
            "stopped. Lower optimizer.learning_rate; the checkpoints so far are intact"
        )
        error.agreed = True  # every rank has the same sums
        return error
