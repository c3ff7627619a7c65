"""Whether the trunk of a network is trained in bfloat16: where the config asks for it, and all ranks can."""

from collections.abc import Callable
from dataclasses import dataclass

from birdsonnx.config.settings import Settings
from birdsonnx.onednn import library, lowering, self_check
from birdsonnx.onednn.descriptors import BF16
from birdsonnx.onednn.library import OnednnError
from birdsonnx.onednn.lowering import NotLowered
from birdsonnx.runtime import isa
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training.gradients import per_slice, with_loss
from birdsonnx.training.kernels import Kernels
from birdsonnx.training.losses import LOSS, Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.trunk_kernels import TrunkKernels


@dataclass(frozen=True)
class Trainable:
    """The trained part, ready to be trained in a precision."""

    network: Network
    part: Partition
    weights: FlatWeights
    kernels: Kernels | None
    """What computes; None: ONNX Runtime, in float32."""
    precision: str
    """`bf16` or `fp32`."""
    line: str
    """The same for people, with the reason where it is not what the config asks for; empty where it asks for
    nothing."""


def settled(
    settings: Settings,
    ranks: Ranks,
    network: Network,
    divide: Callable[[Network], Partition],
    loss: Loss,
    threads: int,
    before: str | None,
) -> Trainable:
    """What every rank trains with.

    Args:
        settings: of the run.
        ranks: which all compute in the same precision.
        network: in forms for ONNX Runtime.
        divide: gives the two parts of a network.
        loss: of the run.
        threads: of this rank.
        before: the precision of the run that is resumed; `auto` stays with it.
    """
    wanted = settings.birdsonnx.precision
    if wanted == "fp32" or (wanted == "auto" and before == "fp32"):
        return _in_float32(network, divide(network), "")
    found: Trainable | None = None
    reason = _missing(wanted == "auto")
    if reason is None:
        batch = -(-settings.data.batch_size // ranks.size)
        try:
            found = _in_bfloat16(network, divide, loss, threads, batch)
        except (NotLowered, OnednnError) as error:
            reason = str(error)
    reasons = [each for each in ranks.everyone(reason) if each is not None]
    if reasons or found is None:
        return _in_float32(network, divide(network), f"fp32: {reasons[0]}")
    return found


def _missing(only_where_fast: bool) -> str | None:
    """Why bfloat16 is not to be had here, or None."""
    if not isa.has_bf16():
        return "this CPU has no instructions for bfloat16"
    if only_where_fast and not isa.is_bf16_fast():
        return "float32 is faster on this CPU, whose AVX512_BF16 has half the rate of its AVX-512"
    try:
        self_check.require_right(library.load())
    except OnednnError as error:
        return str(error)
    return None


def _in_float32(network: Network, part: Partition, line: str) -> Trainable:
    return Trainable(network, part, FlatWeights(part.weights), None, "fp32", line)


def _in_bfloat16(
    network: Network, divide: Callable[[Network], Partition], loss: Loss, threads: int, batch: int
) -> Trainable:
    """Raises NotLowered or OnednnError."""
    own = Network(network.model, network.trainable, by_onednn=True)
    part = divide(own)
    model = with_loss(part, loss)
    kernels_of = lowering.trained_trunk(model, list(part.weights), LOSS).kernels
    weights = FlatWeights(part.weights, turned=kernels_of)
    weights.set(part.weights)
    computes = library.load()
    kernels = TrunkKernels(model, weights, computes, BF16, per_slice(batch, threads))
    return Trainable(own, part, weights, kernels, "bf16", f"bf16, by oneDNN {computes.version}")
