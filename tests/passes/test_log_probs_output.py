"""Graphs that end in log-probabilities, and those that cannot."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.errors import ModelError
from birdsonnx.passes.log_probs_output import end_in_log_probs
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
# Rewrites reorder float32 sums; the values here are of the order of 1 to 10.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax", None])
def test_end_in_log_probs(last):
    nodes = [node("MatMul", ["x", "w"], ["y" if last is None else "scores"])]
    if last:
        nodes.append(node(last, ["scores"], ["y"], axis=-1))
    model = graph_of(nodes, {"w": random(4, 3)}, ["batch", 4], ["batch", 3])
    scores = random(5, 4) @ random(4, 3)
    end_in_log_probs(model)
    assert [output.name for output in model.graph.output] == ["log_probs"]
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(answer(model, random(5, 4)), expected, **CLOSE)


def pooled(*nodes):
    """Class maps `m` from `x` `[batch, 4, 3, 3]`, then the nodes."""
    first = node("Conv", ["x", "w"], ["m"])
    return graph_of(
        [first, *nodes],
        {"w": random(3, 4, 1, 1), "two": np.float32(2), "axes": np.int64([1])},
        MAPS,
        ["batch", 3],
    )


MAPS = ["batch", 4, 3, 3]
POOL = node("GlobalAveragePool", ["m"], ["p"])


@pytest.mark.parametrize(
    "nodes",
    [
        [POOL, node("Softmax", ["p"], ["s"], axis=1), node("Flatten", ["s"], ["y"])],
        [POOL, node("LogSoftmax", ["p"], ["s"], axis=1), node("Flatten", ["s"], ["y"])],
        [POOL, node("Flatten", ["p"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)],
        [POOL, node("Flatten", ["p"], ["f"]), node("Softmax", ["f"], ["s"]), node("Identity", ["s"], ["y"])],
        [POOL, node("Flatten", ["p"], ["y"])],
    ],
    ids=["softmax of maps", "log_softmax of maps", "flat", "before an identity", "scores"],
)
def test_end_in_log_probs_with_other_layouts(nodes):
    model = pooled(*nodes)
    end_in_log_probs(model)
    assert operators(model.graph).count("LogSoftmax") == 1
    assert "Softmax" not in operators(model.graph)
    scores = np.einsum("nchw,kc->nk", random(2, 4, 3, 3), random(3, 4, 1, 1)[:, :, 0, 0]) / 9
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(answer(model, random(2, 4, 3, 3)), expected, **CLOSE)


def test_end_in_log_probs_of_scores_with_a_temperature():
    model = pooled(POOL, node("Flatten", ["p"], ["s"]), node("Mul", ["s", "two"], ["y"]))
    end_in_log_probs(model)
    assert operators(model.graph)[-2:] == ["Mul", "LogSoftmax"]


@pytest.mark.parametrize(
    ("ends", "nodes"),
    [
        ("Sigmoid", [POOL, node("Flatten", ["p"], ["s"]), node("Sigmoid", ["s"], ["y"])]),
        ("Sigmoid", [POOL, node("Sigmoid", ["p"], ["s"]), node("Flatten", ["s"], ["y"])]),
        ("Relu", [POOL, node("Relu", ["p"], ["s"]), node("Flatten", ["s"], ["y"])]),
        (
            "Clip",
            [
                POOL,
                node("Flatten", ["p"], ["s"]),
                node("Clip", ["s", "", "two"], ["c"]),
                node("Clip", ["c", "two"], ["y"]),
            ],
        ),
        (
            "Mul",
            [
                POOL,
                node("Flatten", ["p"], ["f"]),
                node("Sigmoid", ["f"], ["s"]),
                node("Mul", ["f", "s"], ["y"]),
            ],
        ),
    ],
    ids=["sigmoid", "sigmoid of maps", "relu", "cut off", "swish"],
)
def test_end_in_log_probs_refuses_what_is_no_classifier(ends, nodes):
    with pytest.raises(ModelError, match=f"ends in {ends};"):
        end_in_log_probs(pooled(*nodes))


TWICE = [POOL, node("Flatten", ["p"], ["f"]), node("Softmax", ["f"], ["s"]), node("Neg", ["f"], ["g"])]
PROBABILITIES = {
    "mean of softmaxes": [*TWICE, node("Softmax", ["g"], ["t"]), node("Mean", ["s", "t"], ["y"])],
    "half a sum": [
        *TWICE,
        node("Softmax", ["g"], ["t"]),
        node("Add", ["s", "t"], ["u"]),
        node("Div", ["u", "two"], ["y"]),
    ],
    "mean over places": [
        node("Softmax", ["m"], ["s"], axis=1),
        node("GlobalAveragePool", ["s"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ],
    "by its own sum": [
        POOL,
        node("Flatten", ["p"], ["f"]),
        node("Exp", ["f"], ["e"]),
        node("ReduceSum", ["e", "axes"], ["n"]),
        node("Div", ["e", "n"], ["y"]),
    ],
}


@pytest.mark.parametrize("case", PROBABILITIES)
def test_probabilities_of_any_kind_become_their_logarithms(case):
    model = pooled(*PROBABILITIES[case])
    expected = np.log(answer(model, random(2, 4, 3, 3)))
    end_in_log_probs(model)
    np.testing.assert_allclose(answer(model, random(2, 4, 3, 3)), expected, **CLOSE)


def test_probabilities_that_float32_holds_as_zero_have_a_logarithm():
    model = pooled(*PROBABILITIES["mean of softmaxes"])
    end_in_log_probs(model)
    assert answer(model, 1000 * random(2, 4, 3, 3)).min() == np.log(np.finfo(np.float32).tiny)


@pytest.mark.parametrize(
    ("message", "nodes"),
    [
        ("ends in Add;", [*TWICE, node("Softmax", ["g"], ["t"]), node("Add", ["s", "t"], ["y"])]),
        (
            "a Softmax that is not over all of its classes",
            [node("Softmax", ["m"], ["s"], axis=1), node("Flatten", ["s"], ["y"])],
        ),
    ],
    ids=["sum of softmaxes", "softmax at each place"],
)
def test_what_adds_up_to_something_else_is_refused(message, nodes):
    model = pooled(*nodes)
    if "Add" not in message:
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 27
    with pytest.raises(ModelError, match=message):
        end_in_log_probs(model)


def test_end_in_log_probs_refuses_pixels():
    model = graph_of([node("Flatten", ["x"], ["y"])], {}, ["batch", 4, 1, 1], ["batch", 4])
    with pytest.raises(ModelError, match="ends in its own input"):
        end_in_log_probs(model)


def test_log_probs_stay_finite_where_probabilities_do_not():
    nodes = [node("MatMul", ["x", "w"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    model = graph_of(nodes, {"w": np.eye(4, dtype=np.float32)}, ["batch", 4], ["batch", 4])
    end_in_log_probs(model)
    found = answer(model, np.array([[500, 0, 0, -500]], np.float32))
    np.testing.assert_allclose(found, [[0, -500, -500, -1000]])
