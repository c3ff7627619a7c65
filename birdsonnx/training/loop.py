"""The training loop."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from birdsonnx.config.settings import Settings
from birdsonnx.errors import TrainingError
from birdsonnx.model.metadata import OUTPUT
from birdsonnx.runtime import interruption
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.interruption import Interrupted
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks, sum_as_float64
from birdsonnx.runtime.sessions import in_streams, slices
from birdsonnx.training.epochs import NOT_BEGUN, Batch, Begun, Epoch, stops_early
from birdsonnx.training.features import Dataset
from birdsonnx.training.kernels import Feeds
from birdsonnx.training.learner import Learner
from birdsonnx.training.parameters import Flat
from birdsonnx.training.schedules import learning_rate

LogProbs = npt.NDArray[np.float32]

Predictions = tuple[range, LogProbs]
"""Rows of the test set, and what the network answers for them."""

PHOTOS_PER_EVALUATION = 8
"""Photos per forward run at the most."""


class Listener(Audience, Protocol):
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

    def keep_begun(self, done: int, begun: Begun) -> str:
        """The run stops within the epoch after `done` whole ones; gives a line that says what is kept."""

    def keep_predictions(self, epoch: int, predictions: Iterator[Predictions]) -> None:
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
    phases: Phases = field(default_factory=Phases)
    """Takes the seconds of this rank: load, step, sum, optimizer, evaluation, checkpoint."""

    def run(self, history: Sequence[Epoch], begun: Begun = NOT_BEGUN) -> None:
        """Train on from the epochs in `history`, and the steps of the next that were done, to the last epoch
        or until the test loss falls no more.

        A signal that asks for the end stops all ranks after the same step, and what was done is kept.

        Raises:
            TrainingError: a loss, gradient or weight that is not finite; the checkpoints so far are intact.
            Interrupted: on every rank, with what is kept.
        """
        with interruption.held():
            self._run(list(history), begun)

    def _run(self, done: list[Epoch], begun: Begun) -> None:
        patience = self.settings.birdsonnx.early_stopping
        for number in range(len(done) + 1, self.settings.num_epochs + 1):
            if done and stops_early(done, patience):
                return
            rate = learning_rate(self.settings.optimizer, number, self.settings.num_epochs)
            begun = self._train(number, rate, begun)
            self._require_finite_weights(number)
            with self.phases.during("evaluation"):
                loss, accuracy, predictions = self._evaluate(number, begun)
            done.append(Epoch(number, rate, begun.loss, loss, accuracy))
            begun = NOT_BEGUN
            self.listener.on_epoch(done[-1])
            last = number == self.settings.num_epochs or stops_early(done, patience)
            with self.phases.during("checkpoint"):
                self.keeper.keep_epoch(done[-1], last)
                if self.keeper.keeps_predictions:  # after the checkpoint, whose hash they name
                    self.keeper.keep_predictions(number, iter(predictions))

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite stops it, in our own words
    def _train(self, epoch: int, rate: float, begun: Begun) -> Begun:
        """The steps of an epoch after those that are done; returns all of them."""
        learner, seed = self.learner, self.settings.birdsonnx.seed
        # The order depends on nothing but the seed and the epoch: not on the ranks, not on what ran before.
        order = np.random.default_rng([seed, epoch]).permutation(len(self.train))
        batches = list(slices(order.tolist(), self.settings.data.batch_size))

        def load(photos: Sequence[int]) -> Feeds:
            return learner.feeds(self.train, photos, epoch, seed)

        for number, batch in enumerate(batches[begun.steps :], begun.steps + 1):
            started = time.perf_counter()
            share = self.ranks.share(len(batch))
            summed = learner.gradients.sum_over(batch[share.start : share.stop], load)
            total = summed.total  # the gradient; its last element is the loss
            summed.message[-1] = interruption.asked() > 0
            computed = time.perf_counter()
            self._add_up(summed.message)
            added = time.perf_counter()
            divisor = learner.loss.divisor(self.train.labels[batch])
            total /= np.float32(divisor or 1)
            loss, norm = float(total[-1]), float(np.linalg.norm(total[:-1]))
            if not np.isfinite(loss + norm):
                raise _stopped(
                    f"epoch {epoch}, batch {number}: the loss is {loss:g} and the gradient norm {norm:g}"
                )
            clip(total[:-1], norm, self.settings.birdsonnx.clip_norm)
            learner.optimizer.step(learner.weights.flat, total[:-1], rate)

            begun = begun.and_step(loss, divisor)
            ended = time.perf_counter()
            spent_s = ended - started
            data_s = min(summed.data_s, spent_s)
            self.phases.add("load", summed.data_s)
            self.phases.add("step", computed - started - summed.data_s)
            self.phases.add("sum", added - computed)
            self.phases.add("optimizer", ended - added)
            self.listener.on_batch(Batch(epoch, number, len(batches), loss, norm, data_s, spent_s - data_s))
            if summed.message[-1] > 0:  # some rank is to stop: all do
                self._stop(epoch, begun)
        return begun

    def _add_up(self, message: Flat) -> None:
        """Over all ranks; the loss and what follows it are no gradient, and stay float32."""
        if self.settings.birdsonnx.exchange_precision == "fp32":
            self.ranks.add_up(message)
            return
        self.ranks.add_up_rounded(message[:-2])
        self.ranks.add_up(message[-2:])

    def _require_finite_weights(self, epoch: int) -> None:
        """The last step can leave weights that no later loss would tell of."""
        if not np.isfinite(self.learner.weights.flat).all():
            raise _stopped(f"epoch {epoch}: its last steps left weights that are NaN or infinite")

    def _stop(self, epoch: int, begun: Begun) -> NoReturn:
        """End on all ranks, and keep what was done."""
        self._require_finite_weights(epoch)
        number = max(self.ranks.everyone(interruption.asked()))
        raise Interrupted(number, self.keeper.keep_begun(epoch - 1, begun), agreed=True)

    def _evaluate(self, epoch: int, begun: Begun) -> tuple[float | None, float | None, list[Predictions]]:
        """Loss and accuracy over the test photos, if there are any; and this rank's predictions, where they
        are kept."""
        if self.test is None:
            return None, None, []
        learner, test = self.learner, self.test
        session = learner.session()
        loss = correct = 0.0
        finite = True
        predictions: list[Predictions] = []
        share = self.ranks.share(len(test))
        step = -(-self.settings.data.test_batch_size // (self.ranks.size * self.threads))

        def predict(photos: Sequence[int]) -> LogProbs:
            return session.run({learner.part.source: test.features.rows(photos, None)})[OUTPUT]

        size = min(step, PHOTOS_PER_EVALUATION)
        pieces = [
            range(start, min(start + size, share.stop)) for start in range(share.start, share.stop, size)
        ]
        with self.listener.progress("test photos", len(test)) as advance:
            for piece, log_probs in zip(pieces, in_streams(self.threads, predict, pieces), strict=False):
                advance(len(piece) * self.ranks.size)  # the others are as far with their shares
                if not np.isfinite(log_probs).all():
                    finite = False
                    continue
                labels = test.labels[piece.start : piece.stop]
                loss += learner.loss.sum(log_probs, labels)
                correct += int((log_probs.argmax(axis=1) == labels).sum())
                if self.keeper.keeps_predictions:
                    predictions.append((piece, log_probs))
                if interruption.asked():
                    break
        loss, correct, bad, asked = sum_as_float64(
            self.ranks, loss, correct, float(not finite), interruption.asked()
        )
        if bad or not np.isfinite(loss):
            raise _stopped(f"epoch {epoch}: the network answers NaN or infinity for test photos")
        if asked:
            self._stop(epoch, begun)
        return loss / (learner.loss.divisor(test.labels) or 1), correct / len(test), predictions


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
