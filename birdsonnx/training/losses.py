"""Losses: as nodes at a graph's end, whose gradient the runtime makes, and in NumPy, for evaluation.

All are weighted sums of log-probabilities, `-sum(targets * log_probs)`: `targets`, float32
`[batch, classes]`, holds the labels' class weights and their smoothing. Sums, not means: a batch is
divided among ranks and replicas, and only the whole batch knows its size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.config.loss import BALANCED
from birdsonnx.config.settings import Settings
from birdsonnx.model.edits import copy_of, set_constant, set_outputs
from birdsonnx.model.metadata import OUTPUT

LOSS, TARGETS = "loss", "targets"
SMALLEST = 1e-8
"""Least value of `1 - p` in the focal loss: smaller than the steps of float32 at 1 (6e-8), and above 0, where
its power has no derivative."""

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def balanced(photos: npt.NDArray[np.int64]) -> Floats:
    """Weights with which each class counts as much as any other, however few photos it has: as scikit-learn
    defines `class_weight="balanced"`, all photos / (classes * photos of the class), over the classes that
    have photos (G. King and L. Zeng, "Logistic regression in rare events data", Political Analysis 9 (2001),
    137-163). Over all photos their mean is 1, which is also the weight of a class without photos.

    Args:
        photos: of each class, int64 `[classes]`.

    Returns:
        float32 `[classes]`.
    """
    there = photos > 0
    weight = photos.sum() / (np.count_nonzero(there) * np.where(there, photos, 1))
    return np.where(there, weight, 1).astype(np.float32)


@dataclass(frozen=True)
class Loss:
    """Negative log-likelihood as torch.nn.CrossEntropyLoss defines it, with class weights and label
    smoothing; or the focal loss `-(1 - p)^gamma log(p)` of Lin et al. 2017 (arXiv 1708.02002), with class
    weights as its alpha.

    The mean over a batch divides by the sum of its photos' class weights, as in PyTorch.
    """

    weight: Floats
    """One factor per class."""
    smoothing: float
    gamma: float
    """0: no focal factor."""

    @classmethod
    def of(cls, settings: Settings, photos: npt.NDArray[np.int64]) -> "Loss":
        """The loss that a config asks for; `photos`, int64 `[classes]`: how many to train on."""
        loss = settings.loss
        if loss.weight is None:
            weight = np.ones(len(photos), np.float32)
        else:
            weight = balanced(photos) if loss.weight == BALANCED else np.array(loss.weight, np.float32)
        gamma = loss.gamma if loss.function == "Focal" else 0.0
        return cls(weight, settings.birdsonnx.label_smoothing, gamma)

    def targets(self, labels: Labels) -> Floats:
        """What the log-probabilities of photos with these labels are weighted with."""
        classes = len(self.weight)
        targets = np.empty((len(labels), classes), np.float32)
        targets[...] = self.weight * np.float32(self.smoothing / classes)
        targets[np.arange(len(labels)), labels] += self.weight[labels] * np.float32(1 - self.smoothing)
        return targets

    def divisor(self, labels: Labels) -> float:
        """What the sum over photos with these labels is divided by to be their mean."""
        return float(self.weight[labels].sum(dtype=np.float64))

    def sum(self, log_probs: Floats, labels: Labels) -> float:
        """The summed loss of float32 `[batch, classes]` log-probabilities, in float64."""
        terms = self.targets(labels).astype(np.float64) * log_probs
        if self.gamma:
            terms *= np.maximum(1 - np.exp(log_probs, dtype=np.float64), SMALLEST) ** self.gamma
        return -float(terms.sum())

    def append_to(self, model: ModelProto) -> ModelProto:
        """A copy of a model that ends in `loss`, with `targets` as a further input."""
        proto = copy_of(model)
        graph = proto.graph
        classes = len(self.weight)
        last = "loss/weighted"
        nodes: list[NodeProto] = [helper.make_node("Mul", [OUTPUT, TARGETS], [last], name=last)]
        if self.gamma:
            set_constant(graph, "loss/one", np.ones((), np.float32))
            set_constant(graph, "loss/smallest", np.array(SMALLEST, np.float32))
            set_constant(graph, "loss/gamma", np.array(self.gamma, np.float32))
            for operation, inputs, output in (
                ("Exp", [OUTPUT], "loss/p"),
                ("Sub", ["loss/one", "loss/p"], "loss/missing"),
                ("Clip", ["loss/missing", "loss/smallest"], "loss/clipped"),
                ("Pow", ["loss/clipped", "loss/gamma"], "loss/factor"),
                ("Mul", ["loss/weighted", "loss/factor"], "loss/focal"),
            ):
                nodes.append(helper.make_node(operation, inputs, [output], name=output))
            last = "loss/focal"
        nodes.append(helper.make_node("ReduceSum", [last], ["loss/sum"], name="loss/sum", keepdims=0))
        nodes.append(helper.make_node("Neg", ["loss/sum"], [LOSS], name=LOSS))
        graph.node.extend(nodes)
        graph.input.append(helper.make_tensor_value_info(TARGETS, TensorProto.FLOAT, ["batch", classes]))
        set_outputs(graph, [helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, [])])
        return proto
