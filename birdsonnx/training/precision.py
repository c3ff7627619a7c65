"""In which precision the trunk of a network is trained, and by what: ONNX Runtime in float32, or oneDNN in
bfloat16 or float32, where the config asks for it or it is faster, and all ranks can."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from birdsonnx.config.settings import Settings
from birdsonnx.onednn import library, lowering, self_check
from birdsonnx.onednn.descriptors import BF16, F32
from birdsonnx.onednn.library import OnednnError
from birdsonnx.onednn.lowering import NotLowered
from birdsonnx.runtime import gradient_builder, isa
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training.gradients import with_loss
from birdsonnx.training.kernels import Kernels
from birdsonnx.training.losses import LOSS, Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.trunk_kernels import TrunkKernels

BY_ONNXRUNTIME, BY_ONEDNN, IN_BFLOAT16 = "fp32 onnxruntime", "fp32 onednn", "bf16 onednn"
"""What a run is computed by, as its state keeps it: a resumed run stays with it, for the same bits."""

KERNEL = 4
"""Dimensions of a convolution's weights."""

Divide = Callable[[Network], Partition]


@dataclass(frozen=True)
class Trainable:
    """The trained part, ready to be trained."""

    network: Network
    part: Partition
    weights: FlatWeights
    kernels: Kernels | None
    """What computes; None: ONNX Runtime."""
    computed_by: str
    """One of the three above."""
    line: str
    """Precision and library for people, with the reason where they are not what the config asks for; empty
    where nothing is to be said."""
    refusal: str | None = None
    """Why oneDNN does not compute it, where it could have been that."""


@dataclass(frozen=True)
class Question:
    """All that the answer depends on."""

    settings: Settings
    ranks: Ranks
    network: Network
    """In forms for ONNX Runtime."""
    divide: Divide
    """Gives the two parts of a network."""
    loss: Loss
    photos: int
    """To train on."""
    threads: int
    """Of this rank."""
    before: str | None
    """What the run that is resumed was computed by."""

    @property
    def batches(self) -> list[int]:
        """Photos that this rank has of a batch: of a whole one, and of an epoch's last."""
        size = self.settings.data.batch_size
        counts = (min(size, self.photos), self.photos % size)
        return [mine for mine in (len(self.ranks.share(count)) for count in counts) if mine]


def settled(question: Question) -> Trainable:
    """What every rank trains with."""
    own, before = question.settings.birdsonnx, question.before
    reason: str | None = None
    if own.precision == "auto" and before not in (None, IN_BFLOAT16):
        reason = "as in the run that is resumed"
    elif own.precision != "fp32":
        found, reason = _agreed(question, BF16, own.precision == "auto" and before != IN_BFLOAT16)
        if found is not None:
            return found
    why: str | None = None
    if own.engine == "onnxruntime":
        why = '"engine": "onnxruntime" leaves it to ONNX Runtime'
    elif _wants_onednn(question):
        found, why = _agreed(question, F32)
        if found is not None:
            if before == BY_ONNXRUNTIME:
                reason = "the run that is resumed was computed by ONNX Runtime, which rounds otherwise"
            return found if reason is None else replace(found, line=f"{found.line}: {reason}")
        if before == BY_ONEDNN:
            reason = f"{why}; the run that is resumed was computed by oneDNN, which rounds otherwise"
    part = question.divide(question.network)
    line = "" if reason is None else f"fp32: {reason}"
    return Trainable(question.network, part, FlatWeights(part.weights), None, BY_ONNXRUNTIME, line, why)


def _wants_onednn(question: Question) -> bool:
    """Whether float32 is to be tried by oneDNN: where it is faster, or alone can do it. A run that is resumed
    stays with what computed it, where that can be had."""
    faster = isa.is_onednn_faster() and question.before != BY_ONNXRUNTIME
    wanted = faster or question.before == BY_ONEDNN or not gradient_builder.is_installed()
    return any(question.ranks.everyone(wanted))


def _agreed(question: Question, kind: int, where_fast: bool = False) -> tuple[Trainable | None, str | None]:
    """What all ranks train with by oneDNN, or the reason of the first that cannot."""
    found: Trainable | None = None
    reason = _missing(question.network, kind, where_fast)
    if reason is None:
        try:
            found = by_onednn(
                question.network, question.divide, question.loss, kind, question.batches, question.threads
            )
        except (NotLowered, OnednnError) as error:
            reason = str(error)
    reasons = [each for each in question.ranks.everyone(reason) if each is not None]
    return (None, reasons[0]) if reasons else (found, None)


def _missing(network: Network, kind: int, where_fast: bool) -> str | None:
    """Why oneDNN is not to compute this here, or None."""
    if not any(weight.ndim == KERNEL for weight in network.weights.values()):
        return lowering.NO_TRUNK
    if kind == BF16 and not isa.has_bf16():
        return "this CPU has no instructions for bfloat16"
    if where_fast and not isa.is_bf16_fast():
        return "this CPU multiplies bfloat16 at half the speed of float32"
    try:
        self_check.require_right(library.load(), kind)
    except OnednnError as error:
        return str(error)
    return None


def by_onednn(
    network: Network, divide: Divide, loss: Loss, kind: int, batches: Iterable[int], threads: int
) -> Trainable:
    """A network ready to be trained by oneDNN.

    Args:
        network: in any forms.
        divide: gives the two parts of a network.
        loss: of the run.
        kind: BF16 or F32.
        batches: photos that this rank has of a batch, of batches of all sizes.
        threads: of this rank.

    Raises:
        NotLowered: one of the operations is not known here.
        OnednnError: the library cannot be used, or has no kernel for one of them.
    """
    network = Network(network.model, network.trainable, by_onednn=True)
    part = divide(network)
    model = with_loss(part, loss)
    turned = lowering.trained_trunk(model, list(part.weights), LOSS).kernels
    weights = FlatWeights(part.weights, turned)
    weights.set(part.weights)
    computes = library.load()
    kernels = TrunkKernels(model, weights, computes, kind, batches, threads)
    name, by = ("bf16", IN_BFLOAT16) if kind == BF16 else ("fp32", BY_ONEDNN)
    return Trainable(network, part, weights, kernels, by, f"{name}, by oneDNN {computes.version}")
