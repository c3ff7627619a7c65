"""Loss and gradients by ONNX Runtime.

Heads are differentiated by ourselves (`passes.head_gradients`), convolutions by the runtime's own gradient
builder.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
import onnx
from onnx import ModelProto

from birdsonnx.model.edits import copy_of, make_inputs
from birdsonnx.passes.blocked.block_size import block_size
from birdsonnx.passes.blocked.graph import blocked, shapes_in, zeros_for
from birdsonnx.passes.blocked.kernels import DerivedWeight
from birdsonnx.passes.head_gradients import reverse
from birdsonnx.runtime import gradient_builder
from birdsonnx.runtime.engine import Array
from birdsonnx.runtime.sessions import BoundRun, Session
from birdsonnx.training.kernels import Run
from birdsonnx.training.losses import LOSS, Floats
from birdsonnx.training.parameters import Flat, FlatWeights

BYTES_PER_SLICE = 2_700_000_000
"""Of all tensors that a run makes; it holds about a third of them at once. 8 photos of full ResNet50: two
replicas take 2.6 GB, and 16 photos 3.9 GB without being faster."""


class GradientSession:
    """A session that computes the loss and its gradient by some of its inputs.

    Args:
        model: ends in the loss.
        weights: what is differentiated by, and read where it lies.
        values: names of further inputs to differentiate by, which each photo has its own of.
    """

    def __init__(self, model: ModelProto, weights: Mapping[str, Floats], values: Sequence[str] = ()) -> None:
        raw = gradient_graph(model, [*weights, *values])
        for output in raw.graph.output:  # the batch of two photos that the shapes were found with
            if output.name in [gradient_of(name) for name in values]:
                output.type.tensor_type.shape.dim[0].dim_param = "batch"
        shapes = shapes_in(raw, zeros_for(raw))
        graph = blocked(raw, shapes, block_size())
        self._derived = [(derived, np.empty(derived.shape, np.float32)) for derived in graph.derived]
        self._weights = weights
        self._session = Session(graph.model.SerializeToString())
        known = self._session.input_shapes
        inputs = {**weights, **{derived.name: value for derived, value in self._derived}}
        self._inputs = {name: value for name, value in inputs.items() if name in known}
        self.needs = frozenset(known).difference(self._inputs)
        """What each run has to be given."""
        made = {name for node in raw.graph.node for name in node.output}
        self.bytes_per_photo = (
            sum(4 * int(np.prod(shape)) for name, shape in shapes.items() if name in made) // 2
        )
        """Of all tensors that a run makes."""

    def refresh(self, pool: Executor) -> None:
        def write(derived: DerivedWeight, out: Floats) -> None:
            derived.write(self._weights[derived.source], out)

        list(pool.map(lambda pair: write(*pair), self._derived))

    def bound(self, outputs: Mapping[str, Array]) -> BoundRun:
        """Runs that write there: the loss, and gradients by the names of `gradient_of`."""
        return self._session.bound(self._inputs, outputs)


class SessionKernels:
    """The whole trained part in one session."""

    def __init__(self, model: ModelProto, weights: FlatWeights) -> None:
        self._session = GradientSession(model, weights.named)
        self._weights = weights
        self.most = max(1, BYTES_PER_SLICE // max(1, self._session.bytes_per_photo))

    def refresh(self, pool: Executor) -> None:
        self._session.refresh(pool)

    def runs(self, buffers: Iterable[Flat]) -> list[Run]:
        return [
            self._session.bound(
                {
                    **{gradient_of(name): view for name, view in self._weights.views_of(buffer).items()},
                    LOSS: buffer[-1:].reshape(()),
                }
            )
            for buffer in buffers
        ]


def gradient_of(name: str) -> str:
    """The output that holds the gradient by an input."""
    return f"{name}_grad"


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
