"""The training loop."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdsonnx.config.settings import Settings
from birdsonnx.errors import TrainingError
from birdsonnx.model.metadata import OUTPUT
from birdsonnx.runtime.ranks import Ranks, sum_as_float64
from birdsonnx.runtime.sessions import in_streams, slices
from birdsonnx.training.epochs import Batch, Epoch, stops_early
from birdsonnx.training.features import Dataset
from birdsonnx.training.gradients import Feeds
from birdsonnx.training.learner import Learner
from birdsonnx.training.parameters import Flat
from birdsonnx.training.schedules import learning_rate

LogProbs = npt.NDArray[np.float32]

PHOTOS_PER_EVALUATION = 8
"""Photos per forward run at the most."""


class Listener(Protocol):
    """Whoever batches and epochs are reported to."""

    def on_batch(self, batch: Batch) -> None: ...
    def on_epoch(self, epoch: Epoch) -> None: ...


class Keeper(Protocol):
    """Whoever writes checkpoints and predictions; called by every rank."""

    @property
    def keeps_predictions(self) -> bool:
        """Whether test predictions are to be collected."""

    def keep_epoch(self, epoch: Epoch, last: bool) -> None:
        """After every epoch; `last` says that no other follows."""

    def keep_predictions(self, epoch: int, predictions: Iterator[tuple[range, LogProbs]]) -> None:
        """This rank's test predictions after an epoch, where they are collected."""


@dataclass(kw_only=True)
class Training:
    """Everything the loop works on."""

    settings: Settings
    ranks: Ranks
    threads: int
    """Of this rank."""
    learner: Learner
    train: Dataset
    test: Dataset | None
    listener: Listener
    keeper: Keeper

    def run(self, history: Sequence[Epoch]) -> None:
        """Train on from the epochs in `history` to the last, or until the test loss falls no more.

        Raises:
            TrainingError: a loss, gradient or weight that is not finite; the checkpoints so far are intact.
        """
        done = list(history)
        patience = self.settings.birdsonnx.early_stopping
        for number in range(len(done) + 1, self.settings.num_epochs + 1):
            if done and stops_early(done, patience):
                return
            rate = learning_rate(self.settings.optimizer, number, self.settings.num_epochs)
            loss = self._train(number, rate)
            self._require_finite_weights(number)
            done.append(Epoch(number, rate, loss, *self._evaluate(number)))
            self.listener.on_epoch(done[-1])
            last = number == self.settings.num_epochs or stops_early(done, patience)
            self.keeper.keep_epoch(done[-1], last)

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite stops it, in our own words
    def _train(self, epoch: int, rate: float) -> float:
        """One epoch of steps; returns its loss over all photos."""
        learner, seed = self.learner, self.settings.birdsonnx.seed
        # The order depends on nothing but the seed and the epoch: not on the ranks, not on what ran before.
        order = np.random.default_rng([seed, epoch]).permutation(len(self.train))
        batches = list(slices(order.tolist(), self.settings.data.batch_size))
        loss_sum = divisor_sum = 0.0

        def load(photos: Sequence[int]) -> Feeds:
            return learner.feeds(self.train, photos, epoch, seed)

        for number, batch in enumerate(batches, 1):
            started = time.perf_counter()
            share = self.ranks.share(len(batch))
            summed = learner.gradients.sum_over(batch[share.start : share.stop], load)
            total = summed.total  # the gradient; its last element is the loss
            self.ranks.add_up(total)
            divisor = learner.loss.divisor(self.train.labels[batch])
            total /= np.float32(divisor or 1)
            loss, norm = float(total[-1]), float(np.linalg.norm(total[:-1]))
            if not np.isfinite(loss + norm):
                raise _stopped(
                    f"epoch {epoch}, batch {number}: the loss is {loss:g} and the gradient norm {norm:g}"
                )
            clip(total[:-1], norm, self.settings.birdsonnx.clip_norm)
            learner.optimizer.step(learner.weights.flat, total[:-1], rate)

            loss_sum += loss * divisor
            divisor_sum += divisor
            spent_s = time.perf_counter() - started
            data_s = min(summed.data_s, spent_s)
            self.listener.on_batch(Batch(epoch, number, len(batches), loss, norm, data_s, spent_s - data_s))
        return loss_sum / (divisor_sum or 1)

    def _require_finite_weights(self, epoch: int) -> None:
        """The last step of an epoch can leave weights that no later loss would tell of."""
        if not np.isfinite(self.learner.weights.flat).all():
            raise _stopped(f"epoch {epoch}: its last steps left weights that are NaN or infinite")

    def _evaluate(self, epoch: int) -> tuple[float | None, float | None]:
        """Loss and accuracy over the test photos, if there are any; predictions go to the keeper."""
        if self.test is None:
            return None, None
        learner, test = self.learner, self.test
        session = learner.session()
        loss = correct = 0.0
        finite = True
        predictions: list[tuple[range, LogProbs]] = []
        share = self.ranks.share(len(test))
        step = -(-self.settings.data.test_batch_size // (self.ranks.size * self.threads))

        def predict(photos: Sequence[int]) -> LogProbs:
            return session.run({learner.part.source: test.features.rows(photos, None)})[OUTPUT]

        size = min(step, PHOTOS_PER_EVALUATION)
        pieces = [
            range(start, min(start + size, share.stop)) for start in range(share.start, share.stop, size)
        ]
        for piece, log_probs in zip(pieces, in_streams(self.threads, predict, pieces), strict=True):
            if not np.isfinite(log_probs).all():
                finite = False
                continue
            labels = test.labels[piece.start : piece.stop]
            loss += learner.loss.sum(log_probs, labels)
            correct += int((log_probs.argmax(axis=1) == labels).sum())
            if self.keeper.keeps_predictions:
                predictions.append((piece, log_probs))
        loss, correct, bad = sum_as_float64(self.ranks, loss, correct, float(not finite))
        if bad or not np.isfinite(loss):
            raise _stopped(f"epoch {epoch}: the network answers NaN or infinity for test photos")
        if self.keeper.keeps_predictions:
            self.keeper.keep_predictions(epoch, iter(predictions))
        return loss / (learner.loss.divisor(test.labels) or 1), correct / len(test)


def _stopped(why: str) -> TrainingError:
    error = TrainingError(
        f"{why}; training stopped. Lower optimizer.learning_rate; the checkpoints so far are intact"
    )
    error.agreed = True  # every rank has the same sums and the same weights
    return error


def clip(gradient: Flat, norm: float, largest: float | None) -> None:
    """Scale the gradient of the whole batch down to a norm, as torch.nn.utils.clip_grad_norm_ does."""
    if largest is not None and norm > largest:
        gradient *= np.float32(largest / (norm + 1e-6))
