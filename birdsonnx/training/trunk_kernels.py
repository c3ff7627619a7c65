"""Loss and gradients with the trunk of the network on oneDNN, in bfloat16 or float32.

Three parts take turns: what is frozen before the trunk, the trunk, and the head, which makes the loss and the
gradient that goes back into the trunk. The first and the last are sessions in float32.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor

import numpy as np
from onnx import ModelProto, numpy_helper

from birdsonnx.model.weight_names import scope_of
from birdsonnx.onednn import program, trunk
from birdsonnx.onednn.descriptors import BYTES
from birdsonnx.onednn.library import Library
from birdsonnx.onednn.lowering import NotLowered, trained_trunk
from birdsonnx.onednn.operations import affine
from birdsonnx.onednn.recording import Recorded
from birdsonnx.onednn.weight_forms import WeightForms
from birdsonnx.passes.head_gradients import reverse
from birdsonnx.runtime import gradient_builder
from birdsonnx.runtime.sessions import BoundRun, Session, slices
from birdsonnx.training.kernels import Feeds, Run, per_slice
from birdsonnx.training.losses import LOSS, Floats
from birdsonnx.training.parameters import Flat, FlatWeights
from birdsonnx.training.session_kernels import GradientSession, gradient_of

BYTES_PER_ARENA = 600_000_000
"""Of the results of all operations, most of which live until the way back: 32 photos of full ResNet50."""


class TrunkKernels:
    """The trained part of a network in three.

    Args:
        model: the trained part, to the loss, with masks as inputs.
        weights: what is trained.
        library: that computes the trunk.
        kind: the type of activations, BF16 or F32.
        batches: photos that this rank has of a batch, of batches of all sizes; the trunk is compiled for
            their slices at once, so that what has no kernel is known before the first step.
        replicas: that share a batch.

    Raises:
        NotLowered: the trunk has an operation that is not known here, or the head has no gradient here.
        OnednnError: the library has no kernel for one of them.
    """

    def __init__(
        self,
        model: ModelProto,
        weights: FlatWeights,
        library: Library,
        kind: int,
        batches: Iterable[int],
        replicas: int,
    ) -> None:
        self.trained = trained_trunk(model, list(weights.named), LOSS)
        self.library, self.weights = library, weights
        self._kind = kind
        self.is_finite = True
        """Whether all weights are, as of the last `refresh`."""
        found, shapes = self.trained.trunk, self.trained.shapes
        head = trunk.after(model, found, shapes[found.result])
        self.head_weights = {
            name: value for name, value in weights.named.items() if name not in found.weights
        }
        _require_gradients(head, [*self.head_weights, found.result])
        self.head = GradientSession(head, self.head_weights, [found.result])
        before = trunk.before(model, self.trained.given)
        self.frozen = None if before is None else Session(before.SerializeToString())
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        read = {name for each in self.trained.operations for name in each.weights}.difference(found.weights)
        frozen = {name: np.asarray(numpy_helper.to_array(constants[name]), np.float32) for name in read}
        self._forms = WeightForms(
            library,
            {name: weights.named[name] for name in found.weights},
            {**affine.constants(), **frozen},
        )
        self._programs: dict[int, Recorded] = {}
        self._compiling = threading.Lock()
        sizes = [int(np.prod(shapes[each.result])) for each in self.trained.operations]
        self.most = max(1, BYTES_PER_ARENA // (BYTES[kind] * sum(sizes)))
        for count in batches:
            for piece in slices(range(count), per_slice(count, replicas, self.most)):
                self.program_for(len(piece))

    def program_for(self, photos: int) -> Recorded:
        """The compiled trunk; the first to ask for a number of photos makes the others wait for it."""
        with self._compiling:
            if photos not in self._programs:
                self.library.stream()
                made = program.compiled(self.library, self.trained, self._forms, photos, self._kind)
                self._programs[photos] = made
            return self._programs[photos]

    @np.errstate(over="ignore", invalid="ignore")
    def refresh(self, pool: Executor) -> None:
        # oneDNN's Relu, Clip and MaxPool make 0 of what is no number, and the loss would stay finite.
        self.is_finite = bool(np.isfinite(self.weights.flat.sum()))
        self.head.refresh(pool)
        list(pool.map(lambda call: call(), self._forms.calls()))

    def runs(self, buffers: Iterable[Flat]) -> list[Run]:
        replica = program.Replica(self.library)
        return [_TrunkRun(self, replica, buffer) for buffer in buffers]


def _require_gradients(head: ModelProto, by: Sequence[str]) -> None:
    """Raises NotLowered where the head has no gradients here: MobileNet's own top has kernels."""
    node = reverse.last_unknown(head, by)
    if node is not None and not gradient_builder.is_installed():
        raise NotLowered(f"layer {scope_of(node.name)!r} is a {node.op_type} after the last map")


class _TrunkRun:
    """One of the runs of a replica, which write to different buffers."""

    def __init__(self, kernels: TrunkKernels, replica: program.Replica, buffer: Flat) -> None:
        self._kernels, self._replica = kernels, replica
        self._views = kernels.weights.views_of(buffer)
        self._loss = buffer[-1:].reshape(())
        self._heads: dict[int, tuple[BoundRun, Floats, Floats]] = {}

    def __call__(self, feeds: Feeds) -> None:
        kernels, trained = self._kernels, self._kernels.trained
        given = dict(feeds)
        if kernels.frozen is not None:
            needs = kernels.frozen.input_shapes
            given |= kernels.frozen.run({name: feeds[name] for name in needs})
        photos = len(next(iter(feeds.values())))
        head, result, gradient = self._head_for(photos)
        bound = self._replica.bound(kernels.program_for(photos))
        kept = [trained.as_given(name, given[name]) for name in trained.given]  # until the way back is done
        for name, values in zip(trained.given, kept, strict=True):
            bound.give(name, values)
        for name in trained.trunk.weights:
            bound.give(name, self._views[name])
        bound.give(trained.trunk.result, result)
        bound.give(trained.trunk.result + program.GRADIENT, gradient)
        bound.forward()
        head({name: result if name == trained.trunk.result else given[name] for name in kernels.head.needs})
        bound.backward()
        if not kernels.is_finite:
            self._loss[...] = np.nan

    def _head_for(self, photos: int) -> tuple[BoundRun, Floats, Floats]:
        """The head's run, the memory of what it reads of the trunk and of the gradient that it gives back."""
        if photos not in self._heads:
            trained, kernels = self._kernels.trained, self._kernels
            shape = (photos, *trained.shapes[trained.trunk.result])
            result, gradient = np.empty(shape, np.float32), np.empty(shape, np.float32)
            outputs = {gradient_of(name): self._views[name] for name in kernels.head_weights}
            outputs |= {gradient_of(trained.trunk.result): gradient, LOSS: self._loss}
            self._heads[photos] = kernels.head.bound(outputs), result, gradient
        return self._heads[photos]
