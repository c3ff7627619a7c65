"""The trained part of a network, and what changes its weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from birdsonnx.model.weights import having_weights
from birdsonnx.runtime.sessions import Session
from birdsonnx.training.features import Dataset
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.kernels import Feeds
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.masks import Masks
from birdsonnx.training.optimizers import Optimizer
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Partition


@dataclass(frozen=True)
class Learner:
    """Predicts, and learns from batches."""

    part: Partition
    weights: FlatWeights
    loss: Loss
    gradients: Gradients
    optimizer: Optimizer

    def feeds(self, dataset: Dataset, photos: Sequence[int], epoch: int, seed: int) -> Feeds:
        """What the gradients of some photos are computed from in an epoch; `seed` is that of the masks."""
        return {
            self.part.source: dataset.features.rows(photos, epoch),
            TARGETS: self.loss.targets(dataset.labels[photos]),
            **Masks(self.part.dropouts, seed).of(photos, epoch),
        }

    def session(self) -> Session:
        """The trained part with its weights of now.

        They are constants: the runtime arranges them for its fastest kernels, as it will in prediction.
        """
        return Session(having_weights(self.part.trainable, self.weights.named).SerializeToString())
