"""A temperature in the graph: log_softmax(scores / T) of whatever end, by NumPy."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.images.inputs import collect
from birdsonnx.inference.quantizing import quantized_model
from birdsonnx.passes.log_probs_output import end_in_log_probs
from birdsonnx.passes.temperature import DIVISION, divide_scores, without_division
from tests.graphs import answer, graph_of, operators, random
from tests.tiny import make_class_folders, photos, tiny_model

node = helper.make_node
FLAT, MAPS = ["batch", 4], ["batch", 4, 3, 3]
LAST = node("LogSoftmax", ["s"], ["log_probs"], axis=-1)


def log_softmax(scores):
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def network(nodes, shape, **constants):
    model = graph_of([*nodes, LAST], constants, shape, ["batch", 3])
    model.graph.output[0].name = "log_probs"
    return model


KERNEL, BIAS = random(4, 3), random(3)
CONV = random(3, 4, 1, 1)
ENDS = {
    "gemm": ([node("Gemm", ["x", "w", "b"], ["s"])], FLAT, {"w": KERNEL, "b": BIAS}),
    "gemm without bias": ([node("Gemm", ["x", "w"], ["s"])], FLAT, {"w": KERNEL}),
    "gemm with alpha, beta and a turned kernel": (
        [node("Gemm", ["x", "w", "b"], ["s"], alpha=0.5, beta=2.0, transB=1)],
        FLAT,
        {"w": np.ascontiguousarray(KERNEL.T), "b": BIAS},
    ),
    "product and sum": (
        [node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["s"])],
        FLAT,
        {"w": KERNEL, "b": BIAS},
    ),
    "convolution, relu, mean": (
        [
            node("Conv", ["x", "w", "b"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("GlobalAveragePool", ["r"], ["p"]),
            node("Flatten", ["p"], ["s"]),
        ],
        MAPS,
        {"w": CONV, "b": BIAS},
    ),
}


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0])
@pytest.mark.parametrize("end", ENDS)
def test_weights_of_the_last_layer_are_divided(end, temperature):
    nodes, shape, constants = ENDS[end]
    model = network(nodes, shape, **constants)
    photos = random(6, *shape[1:])
    before, kinds = answer(model, photos), operators(model.graph)
    said = divide_scores(model, temperature)
    assert said.endswith("divided by it")
    assert operators(model.graph) == kinds
    np.testing.assert_allclose(
        answer(model, photos), log_softmax(before / temperature), rtol=1e-5, atol=1e-5 / temperature
    )
    assert without_division(model) is None


SCALED = node("Mul", ["m", "two"], ["s"])
OTHER_ENDS = {
    "a kernel that two layers share": [
        node("MatMul", ["x", "w"], ["m"]),
        node("MatMul", ["x", "w"], ["n"]),
        node("Max", ["m", "n"], ["s"]),
    ],
    "scores that something else reads": [
        node("MatMul", ["x", "w"], ["m"]),
        node("Sigmoid", ["m"], ["n"]),
        node("Add", ["m", "n"], ["s"]),
    ],
    "a product after it": [node("MatMul", ["x", "w"], ["m"]), SCALED],
    "scores that are no product": [node("MatMul", ["x", "w"], ["m"]), node("Sigmoid", ["m"], ["s"])],
}


@pytest.mark.parametrize("end", OTHER_ENDS)
def test_a_division_is_put_before_other_ends(end):
    model = network(OTHER_ENDS[end], FLAT, w=KERNEL, two=np.float32(2))
    photos = random(6, 4)
    before = answer(model, photos)
    divide_scores(model, 1.6)
    assert operators(model.graph).count("Div") == 1
    np.testing.assert_allclose(answer(model, photos), log_softmax(before / 1.6), rtol=1e-5, atol=1e-6)
    divide_scores(model, 0.5)  # once more: the same division
    assert operators(model.graph).count("Div") == 1
    np.testing.assert_allclose(answer(model, photos), log_softmax(before / 0.8), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer(without_division(model), photos), before, rtol=1e-5, atol=1e-6)


def test_weights_that_would_be_infinite_stay():
    model = network([node("MatMul", ["x", "w"], ["s"])], FLAT, w=KERNEL * np.float32(1e38))
    divide_scores(model, 0.05)
    assert DIVISION in [each.name for each in model.graph.node]


def test_probabilities_that_are_no_softmax_get_one():
    """The mean of two softmaxes has no scores: its log-probabilities are taken for them."""
    half = [node("Softmax", [each], [f"p{each}"]) for each in "ab"]
    nodes = [
        *(node("MatMul", ["x", f"w{each}"], [each]) for each in "ab"),
        *half,
        node("Add", ["pa", "pb"], ["sum"]),
        node("Mul", ["sum", "half"], ["y"]),
    ]
    constants = {"wa": KERNEL, "wb": random(4, 3) * 2 + 1, "half": np.float32(0.5)}
    model = graph_of(nodes, constants, FLAT, ["batch", 3])
    end_in_log_probs(model)
    photos = random(6, 4)
    before = answer(model, photos)
    assert "put behind" in divide_scores(model, 2.0)
    np.testing.assert_allclose(answer(model, photos), log_softmax(before / 2), rtol=1e-5, atol=1e-6)
    divide_scores(model, 0.5)
    np.testing.assert_allclose(answer(model, photos), before, rtol=1e-5, atol=1e-6)


def test_what_else_reads_the_answers_keeps_them():
    """As an output `known` that is the largest log-probability does."""
    model = network([node("MatMul", ["x", "w"], ["s"])], FLAT, w=KERNEL)
    model.graph.node.append(node("ReduceMax", ["log_probs"], ["known"], axes=[1], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("known", 1, ["batch"]))
    import onnxruntime

    def run():
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return session.run(["log_probs", "known"], {"x": photos})

    photos = random(6, 4)
    log_probs, known = run()
    divide_scores(model, 3.0)
    after, known_after = run()
    np.testing.assert_array_equal(known_after, known)
    np.testing.assert_allclose(after, log_softmax(log_probs / 3), rtol=1e-5, atol=1e-6)


def test_an_int8_networks_last_scale_is_divided(tmp_path):
    folder = make_class_folders(tmp_path / "photos")
    model = tiny_model(3)
    listed = collect([str(folder)], say=lambda _: None)
    quantized = quantized_model(model, listed, "minmax", 1, "sha", min_agreement=0.0).proto
    pixels = photos(30)
    before = answer(quantized, pixels)
    roundings = operators(quantized.graph)
    divide_scores(quantized, 0.37)
    after = answer(quantized, pixels)
    assert operators(quantized.graph) == roundings
    np.testing.assert_allclose(after, log_softmax(before / 0.37), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
