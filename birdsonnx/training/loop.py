"""The training loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdsonnx.config.settings import Settings
from birdsonnx.errors import TrainingError
from birdsonnx.model.metadata import OUTPUT
from birdsonnx.model.weights import having_weights
from birdsonnx.runtime.ranks import Ranks, sum_as_float64
from birdsonnx.runtime.sessions import Session, in_streams, slices
from birdsonnx.training.features import Features
from birdsonnx.training.gradients import Feeds, Gradients
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.masks import Masks
from birdsonnx.training.optimizers import Optimizer
from birdsonnx.training.parameters import Flat, FlatWeights
from birdsonnx.training.partition import Partition
from birdsonnx.training.schedules import learning_rate

LogProbs = npt.NDArray[np.float32]

PHOTOS_PER_EVALUATION = 8
"""Photos per forward run at the most."""


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


def best_epoch(history: Sequence[Epoch]) -> int | None:
    """The first epoch with the lowest test loss, or None where there was no finite one."""
    tested = [epoch for epoch in history if epoch.test_loss is not None and np.isfinite(epoch.test_loss)]
    return min(tested, key=lambda epoch: (epoch.test_loss, epoch.epoch)).epoch if tested else None


def stops_early(history: Sequence[Epoch], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no lower test loss."""
    best = best_epoch(history)
    return patience is not None and best is not None and history[-1].epoch - best >= patience


@dataclass
class Training:
    """Everything the loop works on."""

    settings: Settings
    ranks: Ranks
    part: Partition
    gradients: Gradients
    loss: Loss
    weights: FlatWeights
    optimizer: Optimizer
    train: Dataset
    test: Dataset | None
    threads: int
    listener: Listener
    keep: Callable[[Epoch, bool], None]
    """Called after every epoch, to write checkpoints; also told whether it is the last."""
    keep_predictions: Callable[[int, Iterator[tuple[range, LogProbs]]], None] | None = None
    """Called with the epoch and this rank's test predictions, where they are to be kept."""

    def run(self, history: Sequence[Epoch]) -> None:
        """Train on from the epochs in `history` to the last, or until the test loss falls no more.

        Raises:
            TrainingError: a loss or gradient that is not finite; the checkpoints so far are intact.
        """
        done = list(history)
        patience = self.settings.birdsonnx.early_stopping
        for number in range(len(done) + 1, self.settings.num_epochs + 1):
            if done and stops_early(done, patience):
                return
            rate = learning_rate(self.settings.optimizer, number, self.settings.num_epochs)
            done.append(Epoch(number, rate, self._train(number, rate), *self._evaluate(number)))
            self.listener.on_epoch(done[-1])
            self.keep(done[-1], number == self.settings.num_epochs or stops_early(done, patience))

    def _train(self, epoch: int, rate: float) -> float:
        # The order depends on nothing but the seed and the epoch: not on the ranks, not on what ran before.
        order = np.random.default_rng([self.settings.birdsonnx.seed, epoch]).permutation(len(self.train))
        batches = list(slices(order.tolist(), self.settings.data.batch_size))
        loss_sum = divisor_sum = 0.0
        masks = Masks(self.part.dropouts, self.settings.birdsonnx.seed)

        def load(photos: Sequence[int]) -> Feeds:
            return {
                self.part.source: self.train.features.rows(photos, epoch),
                TARGETS: self.loss.targets(self.train.labels[photos]),
                **masks.of(photos, epoch),
            }

        for number, batch in enumerate(batches, 1):
            started = time.perf_counter()
            share = self.ranks.share(len(batch))
            summed = self.gradients.sum_over(batch[share.start : share.stop], load)
            total = summed.total  # the gradient, and the loss behind it
            self.ranks.add_up(total)
            divisor = self.loss.divisor(self.train.labels[batch])
            total /= np.float32(divisor or 1)
            loss, norm = float(total[-1]), float(np.linalg.norm(total[:-1]))
            if not np.isfinite(loss + norm):
                raise self._not_finite(epoch, number, loss, norm)
            clip(total[:-1], norm, self.settings.birdsonnx.clip_norm)
            self.optimizer.step(self.weights.flat, total[:-1], rate)

            loss_sum += loss * divisor
            divisor_sum += divisor
            spent_s = time.perf_counter() - started
            data_s = min(summed.data_s, spent_s)
            self.listener.on_batch(Batch(epoch, number, len(batches), loss, norm, data_s, spent_s - data_s))
        return loss_sum / (divisor_sum or 1)

    def _evaluate(self, epoch: int) -> tuple[float | None, float | None]:
        if self.test is None:
            return None, None
        test = self.test
        # Weights as constants: the runtime arranges them for its fastest kernels, as it will in prediction.
        session = Session(having_weights(self.part.trainable, self.weights.named).SerializeToString())
        loss = correct = 0.0
        predictions: list[tuple[range, LogProbs]] = []
        share = self.ranks.share(len(test))
        step = -(-self.settings.data.test_batch_size // (self.ranks.size * self.threads))

        def predict(photos: Sequence[int]) -> LogProbs:
            return session.run({self.part.source: test.features.rows(photos, None)})[OUTPUT]

        size = min(step, PHOTOS_PER_EVALUATION)
        pieces = [
            range(start, min(start + size, share.stop)) for start in range(share.start, share.stop, size)
        ]
        for piece, log_probs in zip(pieces, in_streams(self.threads, predict, pieces), strict=True):
            labels = test.labels[piece.start : piece.stop]
            loss += self.loss.sum(log_probs, labels)
            correct += int((log_probs.argmax(axis=1) == labels).sum())
            if self.keep_predictions is not None:
                predictions.append((piece, log_probs))
        loss, correct = sum_as_float64(self.ranks, loss, correct)
        if self.keep_predictions is not None:
            self.keep_predictions(epoch, iter(predictions))
        return loss / (self.loss.divisor(test.labels) or 1), correct / len(test)

    @staticmethod
    def _not_finite(epoch: int, batch: int, loss: float, norm: float) -> TrainingError:
        error = TrainingError(
            f"epoch {epoch}, batch {batch}: the loss is {loss:g} and the gradient norm {norm:g}; training "
            "stopped. Lower optimizer.learning_rate; the checkpoints so far are intact"
        )
        error.agreed = True  # every rank has the same sums
        return error


def clip(gradient: Flat, norm: float, largest: float | None) -> None:
    """Scale the gradient of the whole batch down to a norm, as torch.nn.utils.clip_grad_norm_ does."""
    if largest is not None and norm > largest:
        gradient *= np.float32(largest / (norm + 1e-6))
