"""The loss of a batch and its gradient: replicas that take turns at slices of it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from birdsonnx.errors import InstallationError
from birdsonnx.extras import how_to_install
from birdsonnx.model.weight_names import layer_of, scope_of
from birdsonnx.passes import dropout
from birdsonnx.passes.head_gradients import reverse
from birdsonnx.runtime import gradient_builder
from birdsonnx.runtime.sessions import slices
from birdsonnx.training.kernels import Feeds, Kernels, Run, per_slice
from birdsonnx.training.losses import Loss
from birdsonnx.training.parameters import Flat, FlatWeights
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.session_kernels import SessionKernels

Load = Callable[[Sequence[int]], Feeds]

OVERFLOWS_LATER = np.errstate(over="ignore", invalid="ignore")
"""What is not finite stops the loop, in our own words; each thread has to be told."""


class Summed(NamedTuple):
    """The sums over a batch, or over this rank's share of it."""

    total: Flat
    """The gradient, and as the last element the loss; the replicas' own buffer, good until the next batch."""
    message: Flat
    """The same memory with one element more, for what else ranks want to add up on the way."""
    data_s: float
    compute_s: float


class Gradients:
    """The summed loss of a batch and its gradients with respect to the trained weights.

    Replicas, one thread each, take turns at the slices of a batch and add up what they find. One session that
    divides each operation among its threads leaves cores idle: on 2 cores (Zen 4), 6.3 images/s of full
    ResNet50 training by two replicas, 3.6 to 4.4 by one session with two threads.

    Args:
        part: the network, divided.
        loss: appended to it.
        weights: what is trained; always read where it lies, and not to be changed during `sum_over`.
        replicas: how many.
        kernels: what computes; default: ONNX Runtime.
    """

    def __init__(
        self,
        part: Partition,
        loss: Loss,
        weights: FlatWeights,
        replicas: int,
        kernels: Kernels | None = None,
    ) -> None:
        self._kernels = kernels or SessionKernels(with_loss(part, loss), weights)
        self._replicas = [Replica(self._kernels, weights.flat.size) for _ in range(replicas)]
        self._pool = ThreadPoolExecutor(replicas, thread_name_prefix="replica")

    def sum_over(self, photos: Sequence[int], load: Load) -> Summed:
        """Sum over some photos; `load` gives a slice's rows at the boundary, its targets, and masks for each
        Dropout, by the names of the graph's inputs.

        The slices follow from the number of photos and replicas, and the order of all sums from them.
        """
        if not len(photos):
            nothing = np.zeros_like(self._replicas[0].message)
            return Summed(nothing[:-1], nothing, 0.0, 0.0)
        self._kernels.refresh(self._pool)
        pieces = list(slices(photos, per_slice(len(photos), len(self._replicas), self._kernels.most)))
        turns = [
            self._pool.submit(replica.take, pieces[number :: len(self._replicas)], load)
            for number, replica in enumerate(self._replicas)
        ]
        times = [turn.result() for turn in turns]
        totals = [replica.total for replica in self._replicas[: len(pieces)]]
        spans = np.linspace(0, len(totals[0]), len(self._replicas) + 1).astype(int).tolist()

        @OVERFLOWS_LATER
        def add_up(start: int, end: int) -> None:
            for other in totals[1:]:
                totals[0][start:end] += other[start:end]

        list(self._pool.map(add_up, spans[:-1], spans[1:]))
        data_s, compute_s = (sum(each) / len(self._replicas) for each in zip(*times, strict=True))
        return Summed(totals[0], self._replicas[0].message, data_s, compute_s)


def with_loss(part: Partition, loss: Loss) -> ModelProto:
    """The trained part as it is differentiated: with masks for what is dropped, to the loss."""
    return loss.append_to(dropout.masked(part.trainable, part.dropouts))


class Replica:
    """A thread's own sums, and runs that write there."""

    def __init__(self, kernels: Kernels, weights: int) -> None:
        self.message = np.zeros(weights + 2, np.float32)
        self.total = self.message[:-1]
        """The gradient, and as the last element the loss."""
        self._further = np.zeros_like(self.total)
        self._first_run: Run
        self._next_run: Run
        self._first_run, self._next_run = kernels.runs([self.total, self._further])

    @OVERFLOWS_LATER
    def take(self, pieces: Sequence[Sequence[int]], load: Load) -> tuple[float, float]:
        """Leave the sum over all photos of these slices in `total`; returns seconds of loading and of
        computing."""
        data_s = compute_s = 0.0
        for number, piece in enumerate(pieces):
            started = time.perf_counter()
            feeds = load(piece)
            loaded = time.perf_counter()
            run = self._next_run if number else self._first_run
            run(feeds)
            if number:
                self.total += self._further
            data_s += loaded - started
            compute_s += time.perf_counter() - loaded
        return data_s, compute_s


def require(network: Network, refusal: str | None = None) -> None:
    """Make sure that the gradients of a network can be built here, by ONNX Runtime.

    Args:
        network: to be trained.
        refusal: why oneDNN does not do it; default: it is not known to be installed.

    Raises:
        InstallationError: something that is trained through needs the builder, which is not installed.
    """
    model = network.model
    node = reverse.last_unknown(network.proto, network.weights)
    if node is None or gradient_builder.is_installed():
        return
    layer = layer_of(node.name, {each.name for each in model.metadata.layers}) or scope_of(node.name)
    instead = f" ({how_to_install('bf16')})" if refusal is None else f"; {refusal}"
    raise InstallationError(
        f"{model.where}: layer {layer!r} is a {node.op_type}, and training it or layers before it needs "
        f"{gradient_builder.WHERE}, or oneDNN{instead}; or choose only layers after it "
        'with "birdsonnx": {"trainable": [...]}'
    )
