"""The losses as a graph and in NumPy, both against plain loops of the published formulas in float64."""

import math

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from birdsonnx.training.losses import LOSS, TARGETS, Loss, balanced
from birdsonnx.training.session_kernels import gradient_graph
from tests.graphs import operators

CLASSES = 4
WEIGHT = np.array([0.5, 2, 1, 0], np.float32)
ONES = np.ones(CLASSES, np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 1], np.int64)
LOGITS = np.random.default_rng(0).normal(0, 2, (len(LABELS), CLASSES)).astype(np.float32)

LOSSES = {
    "plain": Loss(ONES, 0, 0),
    "weights": Loss(WEIGHT, 0, 0),
    "smoothing": Loss(ONES, 0.1, 0),
    "both": Loss(WEIGHT, 0.3, 0),
    "focal 0.5": Loss(ONES, 0, 0.5),
    "focal 1": Loss(ONES, 0, 1),
    "focal 2": Loss(ONES, 0, 2),
    "focal 2 with weights": Loss(WEIGHT, 0, 2),
    "focal 2 with all": Loss(WEIGHT, 0.2, 2),
}


def by_formula(logits: np.ndarray, labels: np.ndarray, loss: Loss) -> float:
    """Cross-entropy with label smoothing as PyTorch documents it for CrossEntropyLoss, each term with the
    factor (1 - p)^gamma of Lin et al. 2017, equation 4."""
    total = 0.0
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        exponentials = [math.exp(value - max(row)) for value in row]
        for number, value in enumerate(exponentials):
            p = value / sum(exponentials)
            target = loss.smoothing / CLASSES + (1 - loss.smoothing) * (number == label)
            total -= float(loss.weight[number]) * target * (1 - p) ** loss.gamma * math.log(p)
    return total


@pytest.mark.parametrize("counts", [[100, 8, 8, 100], [1, 1, 1], [5, 0, 3, 0], [7], [1, 10**6]])
def test_balanced_weights_are_those_of_the_definition(counts):
    """n_samples / (n_classes * count), where the classes are those that occur among the samples."""
    there = [count for count in counts if count]
    expected = [sum(counts) / (len(there) * count) if count else 1 for count in counts]
    weight = balanced(np.array(counts, np.int64))
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    assert np.dot(weight, counts) == pytest.approx(sum(counts), rel=1e-6)


def log_probs_of(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


def scorer(weights: np.ndarray | None = None) -> ModelProto:
    """From `x`, the logits, to `log_probs`; or from `x` and weights `logits` that are added."""
    nodes = [helper.make_node("LogSoftmax", ["x" if weights is None else "sum"], ["log_probs"], axis=-1)]
    constants = []
    if weights is not None:
        nodes.insert(0, helper.make_node("Add", ["x", "logits"], ["sum"]))
        constants.append(numpy_helper.from_array(weights, "logits"))
    rows = ["batch" if weights is None else len(weights), CLASSES]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, rows)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def in_graph(loss: Loss, logits: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(loss.append_to(scorer()).SerializeToString())
    [found] = session.run([LOSS], {"x": logits, TARGETS: loss.targets(labels)})
    assert found.shape == ()
    return float(found)


def gradient(loss: Loss, logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss, and its gradient with respect to the logits."""
    model = loss.append_to(scorer(logits))
    model.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = len(labels)  # each photo has weights
    model = gradient_graph(model, ["logits"])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {"x": np.zeros_like(logits), "logits": logits, TARGETS: loss.targets(labels)}
    value, found = session.run([LOSS, "logits_grad"], feeds)
    return float(value), found


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_against_the_formula(loss):
    expected = by_formula(LOGITS, LABELS, loss)
    # float32 log-probabilities; the graph's products and sums are float32 too.
    assert loss.sum(log_probs_of(LOGITS), LABELS) == pytest.approx(expected, rel=1e-6)
    assert in_graph(loss, LOGITS, LABELS) == pytest.approx(expected, rel=1e-5)
    assert gradient(loss, LOGITS, LABELS)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_against_finite_differences(loss):
    _, found = gradient(loss, LOGITS, LABELS)
    step = 1e-5  # in float64: errors of the order of 1e-10
    for index in np.ndindex(LOGITS.shape):
        losses = []
        for sign in (1, -1):
            nudged = LOGITS.astype(np.float64)
            nudged[index] += sign * step
            losses.append(by_formula(nudged, LABELS, loss))
        assert found[index] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["plain", "weights", "smoothing", "both"])
def test_against_pytorch(name):
    torch = pytest.importorskip("torch")
    loss = LOSSES[name]
    logits = torch.tensor(LOGITS, requires_grad=True)
    options = {"weight": torch.tensor(loss.weight), "label_smoothing": loss.smoothing}
    labels = torch.tensor(LABELS)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", **options)
    expected.backward()
    value, found = gradient(loss, LOGITS, LABELS)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(found, logits.grad.numpy(), rtol=1e-5, atol=1e-6)
    mean = torch.nn.functional.cross_entropy(logits, labels, **options)
    assert value / loss.divisor(LABELS) == pytest.approx(mean.item(), rel=1e-5)


def test_a_gamma_of_0_is_no_focal_loss():
    assert operators(Loss(ONES, 0, 0).append_to(scorer()).graph) == ["LogSoftmax", "Mul", "ReduceSum", "Neg"]
    assert Loss(ONES, 0, 1e-6).sum(log_probs_of(LOGITS), LABELS) == pytest.approx(
        by_formula(LOGITS, LABELS, Loss(ONES, 0, 0)), rel=1e-5
    )


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_a_photo_that_is_certain(gamma):
    """p is 1 in float32: neither the loss nor the gradient of (1 - p)^0.5 may be infinite or not a number."""
    loss, labels = Loss(ONES, 0, gamma), np.zeros(2, np.int64)
    logits = np.array([[200, 0, 0, 0], [30, 0, 0, 0]], np.float32)
    value, found = gradient(loss, logits, labels)
    assert value == pytest.approx(0, abs=1e-10)
    assert loss.sum(log_probs_of(logits), labels) == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(found, 0, atol=1e-8)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_a_photo_that_is_certainly_wrong(gamma):
    loss, labels = Loss(ONES, 0, gamma), np.ones(1, np.int64)
    logits = np.array([[200, 0, 0, 0]], np.float32)
    value, found = gradient(loss, logits, labels)
    assert value == pytest.approx(200)
    assert loss.sum(log_probs_of(logits), labels) == pytest.approx(200)
    np.testing.assert_allclose(found, [[1, -1, 0, 0]], atol=1e-6)


def test_a_rounded_log_probability_above_0_stays_a_number():
    """1 - p is negative then, and has no root."""
    log_probs = np.array([[6e-8, -17, -17, -17]], np.float32)
    assert Loss(ONES, 0, 0.5).sum(log_probs, LABELS[:1]) == pytest.approx(0, abs=1e-10)


def test_the_divisor_is_the_sum_of_the_class_weights():
    assert Loss(WEIGHT, 0.3, 0).divisor(LABELS) == pytest.approx(0.5 + 2 + 1 + 0 + 2 + 2)
    assert Loss(ONES, 0.3, 2).divisor(LABELS) == len(LABELS)
    assert Loss(ONES, 0, 0).divisor(LABELS[:0]) == 0


def test_no_photos():
    loss = Loss(WEIGHT, 0.3, 2)
    assert loss.targets(LABELS[:0]).shape == (0, CLASSES)
    assert loss.sum(log_probs_of(LOGITS)[:0], LABELS[:0]) == 0


def test_the_model_is_left_alone():
    model, untouched = scorer(), scorer()
    Loss(WEIGHT, 0.3, 2).append_to(model)
    assert model == untouched
