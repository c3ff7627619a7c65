"""Whole gradients with the trunk on oneDNN: beside ONNX Runtime's in float32, and in bfloat16."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from birdsonnx.config import optimizers as config
from birdsonnx.onednn import library, lowering
from birdsonnx.onednn.descriptors import BF16, F32
from birdsonnx.onednn.lowering import NotLowered
from birdsonnx.runtime import gradient_builder
from birdsonnx.training import optimizers, trunk_kernels
from birdsonnx.training.gradients import Gradients, with_loss
from birdsonnx.training.losses import LOSS, TARGETS, Loss
from birdsonnx.training.masks import Masks
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.trunk_kernels import TrunkKernels
from tests.conftest import needs_training_runtime
from tests.onednn.trunks import needs_bfloat16, needs_onednn
from tests.training.architectures import ARCHITECTURES, CLASSES, Sketch

pytestmark = needs_onednn
SUM = Loss(np.array([1, 0.5, 2], np.float32), 0.1, 0)
LABELS = np.random.default_rng(1).integers(0, CLASSES, 40)
KINDS = [pytest.param(F32, id="float32"), pytest.param(BF16, id="bfloat16", marks=needs_bfloat16)]


@cache
def part_of(name: str, first: str | None = None, by_onednn: bool = True) -> Partition:
    """All layers trained, or those from `first` on."""
    model = ARCHITECTURES[name]()
    layers = [layer.name for layer in model.metadata.layers]
    network = Network(model, layers[layers.index(first) if first else 0 :], by_onednn)
    return network.divide(network.boundaries()[0])


def weights_of(part: Partition, turned: bool = True) -> FlatWeights:
    kernels = lowering.trained_trunk(with_loss(part, SUM), list(part.weights), LOSS).kernels if turned else ()
    weights = FlatWeights(part.weights, turned=kernels)
    weights.set(part.weights)
    return weights


class Batch:
    """What `load` gives."""

    def __init__(self, part: Partition, count: int = 40) -> None:
        generator = np.random.default_rng(0)
        self.source, self._masks = part.source, Masks(part.dropouts, 0)
        if part.row_type == np.uint8:
            self.rows = generator.integers(0, 256, (count, *part.row_shape), np.uint8)
        else:
            self.rows = np.maximum(generator.normal(size=(count, *part.row_shape)), 0).astype(part.row_type)

    def __call__(self, photos: Sequence[int]) -> dict[str, np.ndarray]:
        targets = SUM.targets(LABELS[list(photos)])
        return {self.source: self.rows[list(photos)], TARGETS: targets, **self._masks.of(photos, 1)}


def gradients_by(part: Partition, kind: int, replicas: int = 1, usual: int = 8) -> Gradients:
    weights = weights_of(part)
    kernels = TrunkKernels(with_loss(part, SUM), weights, library.load(), kind, [usual * replicas], replicas)
    return Gradients(part, SUM, weights, replicas, kernels)


def total_of(part: Partition, kind: int, photos: Sequence[int], replicas: int = 1) -> np.ndarray:
    return gradients_by(part, kind, replicas).sum_over(photos, Batch(part)).total.copy()


def named(weights: FlatWeights, total: np.ndarray) -> dict[str, np.ndarray]:
    return {**weights.views_of(total), "loss": total[-1:]}


def by_runtime(name: str, first: str | None, photos: Sequence[int]) -> dict[str, np.ndarray]:
    """ONNX Runtime's gradients."""
    part = part_of(name, first, by_onednn=False)
    weights = weights_of(part, turned=False)
    return named(weights, Gradients(part, SUM, weights, 1).sum_over(photos, Batch(part)).total)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


PLACES = [
    *((name, None) for name in ARCHITECTURES),
    ("resnet", "b1"),
    ("resnet", "c2"),
    ("densenet", "b1"),
    ("efficientnet", "project"),
    ("inception", "two_b"),
]
"""Architecture, and its first trained layer."""


@needs_training_runtime
@pytest.mark.parametrize(("name", "first"), PLACES)
def test_float32_is_what_the_runtime_finds(name, first):
    """Sums in another order: 1e-6 was measured, and a Relu near 0 may fall on the other side."""
    part, photos = part_of(name, first), range(6)
    wanted = by_runtime(name, first, photos)
    found = named(weights_of(part), total_of(part, F32, photos))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert np.linalg.norm(value) > 0, key
        assert distance(found[key], value) <= 1e-5, key


@needs_training_runtime
def test_frozen_layers_may_run_with_the_trunk():
    """From the photos on, where no features are kept: ONNX Runtime computes what comes before the trunk."""
    totals = []
    for by_onednn in (True, False):
        model = ARCHITECTURES["resnet"]()
        layers = [layer.name for layer in model.metadata.layers]
        network = Network(model, layers[layers.index("b1") :], by_onednn)
        part = network.divide(network.boundaries()[-1])
        assert part.boundary.is_photo
        weights = weights_of(part, turned=by_onednn)
        kernels = (
            TrunkKernels(with_loss(part, SUM), weights, library.load(), F32, [5], 1) if by_onednn else None
        )
        gradients = Gradients(part, SUM, weights, 2, kernels)
        totals.append(weights.in_graph_order(gradients.sum_over(range(10), Batch(part)).total[:-1]))
    assert distance(*totals) <= 1e-5


@needs_bfloat16
@pytest.mark.parametrize(("name", "first"), PLACES)
def test_bfloat16_points_where_float32_does(name, first):
    part, photos = part_of(name, first), range(8)
    exact, found = (total_of(part, kind, photos) for kind in (F32, BF16))
    assert found[-1] == pytest.approx(exact[-1], rel=0.02)
    cosine = exact[:-1] @ found[:-1] / (np.linalg.norm(exact[:-1]) * np.linalg.norm(found[:-1]))
    assert cosine >= 0.98
    assert not np.array_equal(found, exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_the_same_again_has_the_same_bits(name, kind):
    part = part_of(name)
    batch, gradients = Batch(part), gradients_by(part, kind, replicas=2)
    first = gradients.sum_over(range(10), batch).total.copy()
    np.testing.assert_array_equal(gradients.sum_over(range(10), batch).total, first)
    np.testing.assert_array_equal(total_of(part, kind, range(10), replicas=2), first)


@pytest.mark.parametrize("kind", KINDS)
def test_two_replicas_find_what_one_finds(kind):
    part = part_of("resnet")
    one, two, three = (total_of(part, kind, range(11), replicas) for replicas in (1, 2, 3))
    assert distance(two, one) <= 1e-5
    assert distance(three, one) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet_v2", "efficientnet"])
def test_batches_of_different_sizes_take_turns_in_one_memory(name, kind):
    """Small, large, small; as fresh ones do."""
    part = part_of(name)
    batch, gradients = Batch(part), gradients_by(part, kind, usual=3)
    fresh = {count: total_of(part, kind, range(count)) for count in (1, 3, 9)}
    for count in (3, 9, 1, 9, 3):
        found = gradients.sum_over(range(count), batch).total
        np.testing.assert_array_equal(found, fresh[count], err_msg=str(count))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_sum_of_its_photos(kind):
    """Nothing of one photo gets into another's gradient; each is computed alone here."""
    part = part_of("densenet")
    batch, gradients = Batch(part), gradients_by(part, kind)
    alone = sum(gradients.sum_over([photo], batch).total.astype(np.float64) for photo in range(5))
    assert distance(gradients.sum_over(range(5), batch).total, alone) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_slices_follow_the_memory(monkeypatch, kind):
    part = part_of("vgg")
    whole = total_of(part, kind, range(12))
    kernels = TrunkKernels(with_loss(part, SUM), weights_of(part), library.load(), kind, [12], 1)
    assert kernels.most >= 12
    monkeypatch.setattr(trunk_kernels, "BYTES_PER_ARENA", trunk_kernels.BYTES_PER_ARENA * 5 // kernels.most)
    kernels = TrunkKernels(with_loss(part, SUM), weights_of(part), library.load(), kind, [12], 1)
    assert 4 <= kernels.most <= 5
    assert distance(total_of(part, kind, range(12)), whole) <= 1e-5
    monkeypatch.setattr(trunk_kernels, "BYTES_PER_ARENA", 1)
    assert TrunkKernels(with_loss(part, SUM), weights_of(part), library.load(), kind, [12], 1).most == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet_v2"])
def test_weights_are_read_where_they_lie(name, kind):
    """Changed ones count from the next batch on."""
    part = part_of(name)
    weights, batch = weights_of(part), Batch(part)
    kernels = TrunkKernels(with_loss(part, SUM), weights, library.load(), kind, [4], 1)
    gradients = Gradients(part, SUM, weights, 1, kernels)
    before = gradients.sum_over(range(4), batch).total.copy()
    weights.flat *= np.float32(1.1)
    after = gradients.sum_over(range(4), batch).total.copy()
    assert not np.array_equal(after, before)
    fresh = weights_of(part)
    fresh.flat[:] = weights.flat
    kernels = TrunkKernels(with_loss(part, SUM), fresh, library.load(), kind, [4], 1)
    np.testing.assert_array_equal(
        Gradients(part, SUM, fresh, 1, kernels).sum_over(range(4), batch).total, after
    )
    weights.flat[:] = weights_of(part).flat
    np.testing.assert_array_equal(gradients.sum_over(range(4), batch).total, before)


@needs_bfloat16
def test_the_loss_falls_as_in_float32():
    """Twelve steps of Adam on one batch of 16. It falls by a tenth with each step, and Adam's first steps are
    as long for gradients near 0, whose signs rounding decides: the curves stay within half a step."""
    curves = {}
    for kind in (F32, BF16):
        part = part_of("resnet")
        weights, batch = weights_of(part), Batch(part)
        kernels = TrunkKernels(with_loss(part, SUM), weights, library.load(), kind, [16], 1)
        gradients = Gradients(part, SUM, weights, 1, kernels)
        optimizer = optimizers.build(config.Adam(type="Adam"), weights)
        curves[kind] = []
        for _ in range(12):
            total = gradients.sum_over(range(16), batch).total / np.float32(16)
            curves[kind].append(float(total[-1]))
            optimizer.step(weights.flat, total[:-1], 0.0002)
    exact = np.array(curves[F32])
    assert exact[-1] < 0.5 * exact[0]
    np.testing.assert_allclose(curves[BF16], exact, rtol=0.06)


def test_it_needs_no_builder_of_gradients(monkeypatch):
    """The trunk has rules of its own, and the head its own too: any onnxruntime will do."""

    def missing(*_: object) -> bytes:
        raise AssertionError("the runtime's builder was asked")

    monkeypatch.setattr(gradient_builder, "with_gradients", missing)
    assert total_of(part_of("inception"), F32, range(2)).any()


def test_a_head_with_kernels_is_refused_where_only_heads_have_gradients(monkeypatch):
    """MobileNet's own top: its last kernels come after the mean over the map."""
    sketch = Sketch()
    pooled = sketch.add("GlobalAveragePool", "pooled", sketch.relu(sketch.conv("c", "input")))
    model = sketch.model(sketch.conv("top", pooled, side=1))
    network = Network(model, ["c", "top", "dense"], by_onednn=True)
    part = network.divide(network.boundaries()[-1])
    monkeypatch.setattr(gradient_builder, "is_installed", lambda: False)
    with pytest.raises(NotLowered, match=r"^layer 'top' is a Conv after the last map$"):
        gradients_by(part, F32)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_numbers_have_no_loss(kind, value):
    """oneDNN's Relu makes 0 of NaN: the loss would stay finite, and training would go on."""
    part = part_of("resnet")
    weights = weights_of(part)
    kernels = TrunkKernels(with_loss(part, SUM), weights, library.load(), kind, [4], 1)
    weights.flat[3] = value
    gradients = Gradients(part, SUM, weights, 1, kernels)
    assert np.isnan(gradients.sum_over(range(4), Batch(part)).total[-1])
    weights.set(part.weights)
    assert np.isfinite(gradients.sum_over(range(4), Batch(part)).total).all()


def test_all_sizes_of_slices_are_compiled_before_the_first_step(monkeypatch):
    part = part_of("resnet")
    weights = weights_of(part)
    kernels = TrunkKernels(with_loss(part, SUM), weights, library.load(), F32, [10, 3], 2)
    monkeypatch.setattr(trunk_kernels.program, "compiled", None)
    gradients = Gradients(part, SUM, weights, 2, kernels)
    for count in (10, 3):
        assert np.isfinite(gradients.sum_over(range(count), Batch(part)).total[-1])
