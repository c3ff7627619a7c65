"""Loss and gradients of the trained part of a network.

Heads are differentiated by ourselves (`passes.head_gradients`), convolutions by ONNX Runtime's own gradient
builder.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from birdsonnx.errors import InstallationError
from birdsonnx.model.edits import copy_of, make_inputs
from birdsonnx.model.weight_names import layer_of, scope_of
from birdsonnx.passes import dropout
from birdsonnx.passes.blocked.block_size import block_size
from birdsonnx.passes.blocked.graph import blocked, shapes_in, zeros_for
from birdsonnx.passes.blocked.kernels import DerivedWeight
from birdsonnx.passes.head_gradients import reverse
from birdsonnx.runtime import gradient_builder
from birdsonnx.runtime.sessions import Session, slices
from birdsonnx.training.losses import LOSS, Floats, Loss
from birdsonnx.training.parameters import Flat, FlatWeights
from birdsonnx.training.partition import Network, Partition

Feeds = Mapping[str, npt.NDArray[Any]]
Load = Callable[[Sequence[int]], Feeds]

OVERFLOWS_LATER = np.errstate(over="ignore", invalid="ignore")
"""What is not finite stops the loop, in our own words; each thread has to be told."""

MOST_PER_SLICE = 32
"""Photos per run at the most: they share the cost of writing and adding a gradient of all weights."""
BYTES_PER_SLICE = 2_700_000_000
"""Of all tensors that a run makes; it holds about a third of them at once. 8 photos of full ResNet50: two
replicas take 2.6 GB, and 16 photos 3.9 GB without being faster."""


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
    """

    def __init__(self, part: Partition, loss: Loss, weights: FlatWeights, replicas: int) -> None:
        model = loss.append_to(dropout.masked(part.trainable, part.dropouts))
        raw = gradient_graph(model, list(weights.named))
        shapes = shapes_in(raw, zeros_for(raw))
        graph = blocked(raw, shapes, block_size())
        self._derived = [(derived, np.empty(derived.shape, np.float32)) for derived in graph.derived]
        self._weights = weights.named
        session = Session(graph.model.SerializeToString())
        known = session.input_shapes
        inputs = {**weights.named, **{derived.name: value for derived, value in self._derived}}
        inputs = {name: value for name, value in inputs.items() if name in known}
        self._replicas = [Replica(session, inputs, weights) for _ in range(replicas)]
        self._pool = ThreadPoolExecutor(replicas, thread_name_prefix="replica")
        made = {name for node in raw.graph.node for name in node.output}
        per_photo = sum(4 * int(np.prod(shape)) for name, shape in shapes.items() if name in made) // 2
        self._most = max(1, min(MOST_PER_SLICE, BYTES_PER_SLICE // max(1, per_photo)))

    def sum_over(self, photos: Sequence[int], load: Load) -> Summed:
        """Sum over some photos; `load` gives a slice's rows at the boundary, its targets, and masks for each
        Dropout, by the names of the graph's inputs.

        The slices follow from the number of photos and replicas, and the order of all sums from them.
        """
        if not len(photos):
            nothing = np.zeros_like(self._replicas[0].message)
            return Summed(nothing[:-1], nothing, 0.0, 0.0)
        self._refresh()
        pieces = list(slices(photos, self._photos_per_slice(len(photos))))
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

    def _refresh(self) -> None:
        def write(derived: DerivedWeight, out: Floats) -> None:
            derived.write(self._weights[derived.source], out)

        list(self._pool.map(lambda pair: write(*pair), self._derived))

    def _photos_per_slice(self, photos: int) -> int:
        """As many as a run may take, so that every replica gets the same number of runs."""
        replicas = len(self._replicas)
        rounds = -(-photos // (replicas * self._most))
        return -(-photos // (replicas * rounds))


class Replica:
    """A thread's own sums, and runs that write there."""

    def __init__(self, session: Session, inputs: Mapping[str, Floats], weights: FlatWeights) -> None:
        self.message = np.zeros(weights.flat.size + 2, np.float32)
        self.total = self.message[:-1]
        """The gradient, and as the last element the loss."""
        self._further = np.zeros_like(self.total)
        self._first_run, self._next_run = (
            session.bound(
                inputs,
                {
                    **{f"{name}_grad": view for name, view in weights.views_of(buffer).items()},
                    LOSS: buffer[-1:].reshape(()),
                },
            )
            for buffer in (self.total, self._further)
        )

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


def require(network: Network) -> None:
    """Make sure that the gradients of a network can be built here.

    Raises:
        InstallationError: something that is trained through needs the builder, which is not installed.
    """
    model = network.model
    node = reverse.last_unknown(network.proto, network.weights)
    if node is None or gradient_builder.is_installed():
        return
    layer = layer_of(node.name, {each.name for each in model.metadata.layers}) or scope_of(node.name)
    raise InstallationError(
        f"{model.where}: layer {layer!r} is a {node.op_type}, and training it or layers before it needs "
        f"{gradient_builder.WHERE}; train there, or choose only layers after it with "
        '"birdsonnx": {"trainable": [...]}'
    )


def gradient_graph(model: ModelProto, trainable: list[str]) -> ModelProto:
    """The graph that computes `loss` and, as `<name>_grad`, its gradients; the weights are its inputs."""
    # As inputs from here on: of small constants that are equal, as biases are before they are trained, the
    # runtime's optimizer keeps one.
    model = copy_of(model)
    make_inputs(model.graph, set(trainable))
    if reverse.last_unknown(model, trainable) is None:
        return reverse.with_gradients(model, LOSS, trainable, shapes_in(model, zeros_for(model)))
    content = gradient_builder.with_gradients(model.SerializeToString(), LOSS, trainable)
    return onnx.load_model_from_string(content)
