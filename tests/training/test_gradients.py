"""Sums of gradients over a batch: against finite differences in float64, closed formulas, a plain loop over
single photos, and for the real ResNet50 against Keras."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from birdsonnx.errors import DataError, InstallationError
from birdsonnx.runtime import gradient_builder
from birdsonnx.training import kernels, session_kernels
from birdsonnx.training.gradients import Gradients, require
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.session_kernels import gradient_graph
from tests.conftest import REAL_DATA, needs_real_data, needs_training_runtime
from tests.networks import keras_warns, two_dense
from tests.tiny import FEATURES, residual_model, tiny_model

CLASSES = 3
LOSS = Loss(np.array([1, 0.5, 2], np.float32), 0.1, 0)
PLAIN = Loss(np.ones(CLASSES, np.float32), 0, 0)
LABELS = np.random.default_rng(1).integers(0, CLASSES, 33)
ALL = ["stem", "block_a", "block_b", "last", "dense"]

PARTS = {
    "dense": (tiny_model(), ["dense"]),
    "two dense": (two_dense(), ["hidden", "dense"]),
    "the first of two": (two_dense(), ["hidden"]),
    "all of the tiny one": (tiny_model(), ["conv1", "conv2", "dense"]),
    "after the block": (residual_model(), ["last", "dense"]),
    "inside the block": (residual_model(), ["block_b", "dense"]),
    "the stem only": (residual_model(), ["stem"]),
    "all": (residual_model(), ALL),
}


def part_of(name: str) -> Partition:
    model, trainable = PARTS[name]
    network = Network(model, trainable)
    try:
        require(network)
    except InstallationError as error:
        pytest.skip(str(error))
    return network.divide(network.boundaries()[0])


def rows_of(part: Partition, count: int = 33) -> np.ndarray:
    generator = np.random.default_rng(0)
    if part.row_type == np.uint8:
        return generator.integers(0, 256, (count, *part.row_shape), np.uint8)
    return np.maximum(generator.normal(size=(count, *part.row_shape)), 0).astype(part.row_type)


class Batch:
    """What `load` gives, and what it was asked for."""

    def __init__(self, part: Partition, loss: Loss, rows: np.ndarray | None = None) -> None:
        self.source = part.source
        self.rows = rows_of(part) if rows is None else rows
        self.loss = loss
        self.asked: list[list[int]] = []

    def __call__(self, photos: Sequence[int]) -> dict[str, np.ndarray]:
        self.asked.append(list(photos))
        return {self.source: self.rows[list(photos)], TARGETS: self.loss.targets(LABELS[list(photos)])}


def weights_of(part: Partition) -> FlatWeights:
    """Away from the zeros that biases start with."""
    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    weights.flat += np.random.default_rng(2).normal(0, 0.02, weights.flat.size).astype(np.float32)
    return weights


def named(weights: FlatWeights, total: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in weights.views_of(total).items()}


def in_a_loop(part: Partition, loss: Loss, weights: FlatWeights, photos: Sequence[int]) -> np.ndarray:
    """The gradient and, last, the loss in float64, one photo after the other, from the builder's graph."""
    graph = gradient_graph(loss.append_to(part.trainable), list(weights.named))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    outputs = [*(f"{name}_grad" for name in weights.named), "loss"]
    batch = Batch(part, loss)
    total = np.zeros(weights.flat.size + 1)
    for photo in photos:
        found = session.run(outputs, {**batch([photo]), **weights.named})
        total += np.concatenate([value.ravel().astype(np.float64) for value in found])
    return total


def assert_close(weights: FlatWeights, found: np.ndarray, expected: np.ndarray, relative: float) -> None:
    """Relative to the largest of each tensor, the loss on its own."""
    assert found[-1] == pytest.approx(expected[-1], rel=relative)
    for name, span in zip(weights.named, weights.spans, strict=True):
        atol = relative * np.abs(expected[span]).max() + 1e-12
        np.testing.assert_allclose(found[span], expected[span], rtol=0, atol=atol, err_msg=name)


# --- Right values ---------------------------------------------------------------------------------------


def in_float64(model: ModelProto) -> ModelProto:
    """The same graph, computed by onnx's reference evaluator in float64."""
    wide = ModelProto.FromString(model.SerializeToString())
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast":
                attribute.i = TensorProto.DOUBLE
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return wide


@pytest.mark.parametrize("name", PARTS)
def test_against_finite_differences(name):
    part = part_of(name)
    weights, photos = weights_of(part), [0, 1, 2]
    batch = Batch(part, LOSS)
    rows, targets = batch(photos).values()
    feeds = {part.source: rows if rows.dtype == np.uint8 else rows.astype(np.float64)}
    model = in_float64(part.trainable)
    trained = [tensor for tensor in model.graph.initializer if tensor.name in weights.named]
    for tensor in trained:
        model.graph.initializer.remove(tensor)
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, TensorProto.DOUBLE, tensor.dims)
        )
    evaluator = ReferenceEvaluator(model)

    def loss_of(values: dict[str, np.ndarray]) -> float:
        [log_probs] = evaluator.run(None, {**feeds, **values})
        return -float((targets * log_probs).sum())

    wide = {key: value.astype(np.float64) for key, value in weights.named.items()}
    total = Gradients(part, LOSS, weights, 2).sum_over(photos, batch).total
    assert total[-1] == pytest.approx(loss_of(wide), rel=1e-5)
    step = 1e-6  # in float64: errors of the order of 1e-9
    for key, value in named(weights, total).items():
        # The largest of each tensor, and some at random; many of a kernel after a Relu are 0.
        chosen = [int(np.abs(value).argmax()), *np.random.default_rng(3).integers(0, value.size, 2)]
        tolerance = 1e-5 * float(np.abs(value).max())
        for index in chosen:
            losses = []
            for sign in (1, -1):
                nudged = wide[key].copy()
                nudged.flat[index] += sign * step
                losses.append(loss_of({**wide, key: nudged}))
            difference = (losses[0] - losses[1]) / (2 * step)
            assert value.flat[index] == pytest.approx(difference, rel=1e-4, abs=tolerance)


def error_of(x: np.ndarray, weights: FlatWeights) -> np.ndarray:
    """`p - onehot` of the last Dense, in float64."""
    scores = x @ weights.named["dense/kernel"].astype(np.float64) + weights.named["dense/bias"]
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(CLASSES)[LABELS]


def test_one_dense_against_the_formula():
    """The gradient of softmax cross-entropy: (p - onehot), summed through the Dense."""
    part = part_of("dense")
    weights, batch = weights_of(part), Batch(part, PLAIN)
    found = named(weights, Gradients(part, PLAIN, weights, 1).sum_over(range(33), batch).total)
    x = batch.rows.astype(np.float64)
    assert x.shape == (33, FEATURES)
    error = error_of(x, weights)
    np.testing.assert_allclose(found["dense/kernel"], x.T @ error, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["dense/bias"], error.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_two_dense_against_the_formula():
    part = part_of("two dense")
    weights, batch = weights_of(part), Batch(part, PLAIN)
    found = named(weights, Gradients(part, PLAIN, weights, 1).sum_over(range(33), batch).total)
    x = batch.rows.astype(np.float64)
    hidden = np.maximum(x @ weights.named["hidden/kernel"] + weights.named["hidden/bias"], 0)
    error = error_of(hidden, weights)
    back = error @ weights.named["dense/kernel"].T.astype(np.float64) * (hidden > 0)
    expected = {
        "hidden/kernel": x.T @ back,
        "hidden/bias": back.sum(axis=0),
        "dense/kernel": hidden.T @ error,
        "dense/bias": error.sum(axis=0),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        atol = 1e-5 * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)


def test_confident_mistakes_stay_finite():
    part = part_of("dense")
    weights, batch = weights_of(part), Batch(part, PLAIN)
    weights.named["dense/bias"][...] = [0, 0, 500]
    wrong = int((LABELS != 2).sum())
    total = Gradients(part, PLAIN, weights, 1).sum_over(range(33), batch).total
    assert wrong * 400 < total[-1] < wrong * 600
    first, second, _ = np.bincount(LABELS, minlength=CLASSES)
    np.testing.assert_allclose(total[-4:-1], [-first, -second, wrong], atol=1e-4)


@needs_training_runtime
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("at", range(3))
def test_where_the_network_is_divided_makes_no_difference(at, half):
    network = Network(*PARTS["after the block"])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    boundaries = network.boundaries()
    totals = []
    for boundary in (boundaries[at], boundaries[-1]):
        part = network.divide(boundary, half=half and not boundary.is_photo)
        weights = weights_of(part)
        rows = pixels
        if part.backbone is not None:
            [rows] = onnxruntime.InferenceSession(part.backbone).run(None, {"images": pixels})
            assert rows.dtype == part.row_type
        totals.append(Gradients(part, LOSS, weights, 1).sum_over(range(5), Batch(part, LOSS, rows)).total)
    # float16 holds 11 bits: features are off by up to 1 / 2048.
    assert_close(weights, totals[0], totals[1], 5e-3 if half else 1e-5)


# --- Sums -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop_sums():
    part = part_of("all")
    weights = weights_of(part)
    return {
        count: in_a_loop(part, LOSS, weights, range(33 - count, 33))  # not from the first photo
        for count in (0, 1, 2, 5, 33)
    }


@pytest.mark.parametrize("most", [32, 3])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_sums_are_those_of_a_plain_loop(replicas, most, loop_sums, monkeypatch):
    monkeypatch.setattr(kernels, "MOST_PER_SLICE", most)
    part = part_of("all")
    weights = weights_of(part)
    gradients = Gradients(part, LOSS, weights, replicas)
    # Large and small by turns: sums of an earlier batch must not show through.
    for count in (5, 33, 1, 0, 2, 33, 0, 5):
        batch = Batch(part, LOSS)
        photos = range(33 - count, 33)
        found = gradients.sum_over(photos, batch)
        assert_close(weights, found.total, loop_sums[count], 1e-5)
        assert sorted(photo for piece in batch.asked for photo in piece) == list(photos)
        sizes = sorted(len(piece) for piece in batch.asked)
        assert all(size <= most for size in sizes)
        assert len(sizes) <= replicas * -(-count // (replicas * most))
        assert found.data_s >= 0
        assert (found.compute_s > 0) == (count > 0)


@pytest.mark.parametrize("name", PARTS)
def test_all_parts_are_those_of_a_plain_loop(name):
    part = part_of(name)
    weights = weights_of(part)
    found = Gradients(part, LOSS, weights, 2).sum_over(range(5), Batch(part, LOSS)).total
    assert list(weights.named) == list(part.weights)
    assert_close(weights, found, in_a_loop(part, LOSS, weights, range(5)), 1e-5)


def test_slices_fit_into_memory(monkeypatch):
    monkeypatch.setattr(session_kernels, "BYTES_PER_SLICE", 1)
    part = part_of("all")
    batch = Batch(part, LOSS)
    Gradients(part, LOSS, weights_of(part), 2).sum_over(range(5), batch)
    assert sorted(batch.asked) == [[0], [1], [2], [3], [4]]


def test_slices_follow_the_size_of_the_network(monkeypatch):
    """Twice the memory, twice the photos."""
    asked = []
    for most in (400_000, 800_000):
        monkeypatch.setattr(session_kernels, "BYTES_PER_SLICE", most)
        part = part_of("all")
        batch = Batch(part, LOSS)
        Gradients(part, LOSS, weights_of(part), 1).sum_over(range(32), batch)
        asked.append(max(len(piece) for piece in batch.asked))
    assert asked[1] >= 1.5 * asked[0]
    assert asked[0] >= 1


def test_the_same_again_is_the_same_to_the_last_bit():
    part = part_of("all")
    weights = weights_of(part)
    gradients = Gradients(part, LOSS, weights, 3)
    first = gradients.sum_over(range(33), Batch(part, LOSS)).total.copy()
    gradients.sum_over(range(5), Batch(part, LOSS))
    again = gradients.sum_over(range(33), Batch(part, LOSS)).total
    np.testing.assert_array_equal(again, first)
    other = Gradients(part, LOSS, weights, 3).sum_over(range(33), Batch(part, LOSS)).total
    np.testing.assert_array_equal(other, first)


def test_a_total_may_be_changed_until_the_next_batch():
    part = part_of("all")
    gradients = Gradients(part, LOSS, weights_of(part), 2)
    total = gradients.sum_over(range(5), Batch(part, LOSS)).total
    first = total.copy()
    total /= 7  # as the loop does
    np.testing.assert_array_equal(total, first / 7)
    np.testing.assert_array_equal(gradients.sum_over(range(5), Batch(part, LOSS)).total, first)
    nothing = gradients.sum_over([], Batch(part, LOSS)).total
    assert not nothing.any()
    nothing += 1
    np.testing.assert_array_equal(gradients.sum_over(range(5), Batch(part, LOSS)).total, first)


def test_weights_are_read_where_they_lie():
    """Those that the runtime reads rearranged too."""
    part = part_of("all")
    weights = weights_of(part)
    gradients = Gradients(part, LOSS, weights, 2)
    gradients.sum_over(range(5), Batch(part, LOSS))
    for name, value in weights.named.items():
        value *= 1.5
        found = gradients.sum_over(range(5), Batch(part, LOSS)).total
        assert_close(weights, found, in_a_loop(part, LOSS, weights, range(5)), 1e-5)
        value += 0.01 * np.abs(value).max()
        assert name in part.weights
    found = gradients.sum_over(range(5), Batch(part, LOSS)).total
    assert_close(weights, found, in_a_loop(part, LOSS, weights, range(5)), 1e-5)


def test_weights_are_not_changed():
    part = part_of("all")
    weights = weights_of(part)
    before = weights.flat.copy()
    Gradients(part, LOSS, weights, 2).sum_over(range(5), Batch(part, LOSS))
    np.testing.assert_array_equal(weights.flat, before)
    np.testing.assert_array_equal(part.weights["stem/kernel"], Network(*PARTS["all"]).weights["stem/kernel"])


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_photo_that_cannot_be_read_ends_the_batch(replicas):
    part = part_of("dense")
    batch = Batch(part, LOSS)

    def load(photos: Sequence[int]) -> dict[str, np.ndarray]:
        if 4 in photos:
            raise DataError("photo 4")
        return batch(photos)

    gradients = Gradients(part, LOSS, weights_of(part), replicas)
    with pytest.raises(DataError, match="photo 4"):
        gradients.sum_over(range(5), load)
    assert gradients.sum_over(range(4), load).total.any()


# --- Without the runtime's builder ----------------------------------------------------------------------


@pytest.fixture
def no_builder(monkeypatch):
    """As with a plain onnxruntime."""

    def missing(*_: object) -> bytes:
        raise AssertionError("the runtime's builder was asked")

    monkeypatch.setattr(gradient_builder, "is_installed", lambda: False)
    monkeypatch.setattr(gradient_builder, "with_gradients", missing)


@pytest.mark.parametrize("name", ["dense", "two dense", "the first of two"])
def test_a_head_needs_no_builder(name, no_builder):
    part = part_of(name)
    require(Network(*PARTS[name]))
    assert Gradients(part, LOSS, weights_of(part), 2).sum_over(range(5), Batch(part, LOSS)).total.any()


@pytest.mark.parametrize(
    ("name", "layer", "operation"),
    [("after the block", "last", "Conv"), ("the stem only", "last", "Conv")],
)
def test_what_needs_the_builder_is_refused_by_name(name, layer, operation, no_builder):
    message = (
        rf"^(tiny|residual): layer '{layer}' is a {operation}, and training it or layers before it needs "
        r"onnxruntime-training-cpu 1\.19\.2, for CPython 3\.11 and 3\.12 .*, or oneDNN \(.*\); or choose "
        r'only layers after it with "birdsonnx": {"trainable": \[...\]}$'
    )
    with pytest.raises(InstallationError, match=message):
        require(Network(*PARTS[name]))


# --- The real network -----------------------------------------------------------------------------------


def test_small_weights_that_are_equal_are_trained_apart():
    """The runtime's optimizer keeps one of equal constants of up to 8 numbers, such as biases of zeros."""
    zeros = np.zeros(3, np.float32)
    nodes = [
        helper.make_node("Add", ["x", "first"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Add", ["b", "second"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["loss"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])]
    outputs = [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])]
    tensors = [numpy_helper.from_array(zeros, name) for name in ("first", "second")]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(gradient_graph(model, ["first", "second"]).SerializeToString())
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    found = session.run(["first_grad", "second_grad"], {"x": x, "first": zeros, "second": zeros})
    np.testing.assert_allclose(found[0], np.exp(x).sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found[1], [2, 2, 2])


@pytest.mark.slow
@needs_real_data
@keras_warns
def test_every_gradient_of_resnet50_is_that_of_keras():
    """Keras' GradientTape, and not differences of float32 losses: it is written by others, needs no step that
    is neither too small for float32 nor too large for the Relus, and gives all 25 million elements, where a
    difference along a kernel's gradient sees nothing that is perpendicular to it.

    birdsonnx trains kernels that BatchNormalization is folded into, `k' = k * s` and `b' = (b - mean) * s +
    beta`: the gradient of `k` is `s` times that of `k'`, that of `beta` equals that of `b'`.
    """
    import tensorflow as tf

    from birdsonnx.keras_io import architectures
    from birdsonnx.keras_io.tf2onnx_road.conversion import convert

    paths = sorted((REAL_DATA / "birds12" / "valid").glob("*/*.jpg"))[:2]
    pixels = np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize((224, 224)), np.uint8) for path in paths]
    )
    labels = np.array([0, 2])
    source = architectures.build("ResNet50", CLASSES, str(REAL_DATA / "resnet50_imagenet_notop.h5"), seed=0)
    source.model.trainable = True
    for layer in source.layers:
        layer.trainable = True
    model = convert(source, "resnet50").model
    network = Network(model, [layer.name for layer in model.metadata.layers])
    part = network.divide(network.boundaries()[0])
    assert part.boundary.is_photo
    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    assert weights.flat.size > 23_000_000
    gradients = Gradients(part, PLAIN, weights, 2)

    def load(photos: Sequence[int]) -> dict[str, np.ndarray]:
        return {part.source: pixels[photos], TARGETS: PLAIN.targets(labels[photos])}

    total = gradients.sum_over([0, 1], load).total
    found = named(weights, total)

    layers = {layer.name: layer for layer in source.layers}
    with tf.GradientTape() as tape:
        images = tf.constant(pixels[..., ::-1].astype(np.float32) - [103.939, 116.779, 123.68], tf.float32)
        log_probs = source.model(images, training=False)
        loss = -tf.reduce_sum(tf.gather(log_probs, labels, axis=1, batch_dims=1))
    variables = [variable.value for layer in layers.values() for variable in layer.trainable_variables]
    places = [
        (layer.name, variable.name) for layer in layers.values() for variable in layer.trainable_variables
    ]
    expected = {
        place: value.numpy() for place, value in zip(places, tape.gradient(loss, variables), strict=True)
    }
    assert total[-1] == pytest.approx(float(loss), rel=1e-5)

    compared = set()
    for layer in layers.values():
        kernel = f"{layer.name}/kernel"
        if kernel not in found:
            continue
        value, bias = found[kernel], found[f"{layer.name}/bias"]
        shift = (layer.name, "bias")
        if value.ndim == 4:
            norm = layers[layer.name.removesuffix("_conv") + "_bn"]
            gamma, _, _, variance = norm.get_weights()
            scale = gamma / np.sqrt(variance + norm.epsilon)
            value = (value * scale.reshape(-1, 1, 1, 1)).transpose(2, 3, 1, 0)
            shift = (norm.name, "beta")
        for mine, other in ((value, expected[layer.name, "kernel"]), (bias, expected[shift])):
            # Single elements where a Relu or a maximum flips in the last bit differ more than the others.
            assert np.linalg.norm(mine - other) <= 1e-3 * np.linalg.norm(other), layer.name
            assert np.linalg.norm(other) > 0
        compared |= {kernel, f"{layer.name}/bias"}
    assert compared == set(found)
    assert len(compared) == 2 * 54
