"""int8 against float32, and what the file holds."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import Graph
from birdsonnx.model.metadata import INPUT
from birdsonnx.model.model_file import BirdModel, parse
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes import quantization, stem
from birdsonnx.passes.quantization import METHODS, quantize
from birdsonnx.passes.uint8_input import PREPROCESS, take_uint8, with_preprocessing
from tests.graphs import answer, graph_of, int8_answer, operators
from tests.tiny import SIZE, photos, residual_model, tiny_model

node = helper.make_node
CLOSE = 0.05
"""Of the largest log-probability: a step of uint8 is 1/255 of an activation's range, and every layer adds its
own; 0.02 to 0.04 were measured."""


def int8_of(model: BirdModel, method: quantization.Method = "minmax") -> ModelProto:
    return quantize(model.proto, model.metadata.preprocessing, iter([photos(16), photos(5, 1)]), method)


def run(model: ModelProto, pixels: np.ndarray, *further: str) -> list[np.ndarray]:
    """The outputs and further tensors, by a session with nothing of ours."""
    shown = copy.deepcopy(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in further)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT: pixels})


@pytest.fixture(scope="module")
def tiny() -> ModelProto:
    return int8_of(tiny_model())


@pytest.mark.parametrize("make", [tiny_model, residual_model])
@pytest.mark.parametrize("mode", ["caffe", "torch", "tf", "unit", "none"])
def test_it_agrees_with_float32(make, mode):
    model = with_preprocessing(make(), of_mode(mode, 3))
    # Weights that suit the preprocessing: inputs as large as those the network was made for.
    [kernel] = [value for value in model.proto.graph.initializer if value.name in KERNELS]
    scale = {"caffe": 1, "none": 1, "torch": 64, "tf": 128, "unit": 255}[mode]
    kernel.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(kernel) * scale, kernel.name))
    pixels = photos(40, seed=2)
    expected, found = answer(model.proto, pixels), int8_answer(int8_of(model), pixels)
    np.testing.assert_allclose(found, expected, atol=CLOSE * max(1, np.abs(expected).max()))
    first, second = np.sort(expected)[:, ::-1][:, :2].T
    clear = first - second > 2 * np.abs(found - expected).max()
    assert clear.sum() > 10
    np.testing.assert_array_equal(found.argmax(1)[clear], expected.argmax(1)[clear])


KERNELS = ("conv1/kernel", "stem/kernel")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_in_silence_and_with_batches_of_several_sizes(method, capfd):
    pixels = photos(10, seed=2)
    expected, found = answer(tiny_model().proto, pixels), int8_answer(int8_of(tiny_model(), method), pixels)
    np.testing.assert_allclose(found, expected, atol=3 * CLOSE)  # the others cut outliers off
    assert capfd.readouterr() == ("", "")


def test_it_begins_on_uint8(tiny):
    kinds = operators(tiny.graph)
    assert "Cast" not in kinds[: kinds.index("QuantizeLinear")]
    graph = Graph(tiny.graph)
    conv = next(item for item in tiny.graph.node if item.op_type == "Conv")
    dequantize = graph.producers[conv.input[0]]
    assert dequantize.op_type == "DequantizeLinear"
    pixels, scale, zero = dequantize.input
    assert graph.constant(scale) == 1
    assert graph.constant(zero) == np.uint8(0)
    assert graph.constant(zero).dtype == np.uint8
    assert run(tiny, photos(1), pixels)[1].dtype == np.uint8
    assert not any(item.name.startswith(PREPROCESS) for item in tiny.graph.node)


def test_weights_are_int8_per_channel_and_activations_uint8(tiny):
    graph = Graph(tiny.graph)
    weights, activations = {}, []
    for item in tiny.graph.node:
        if item.op_type == "DequantizeLinear" and item.input[0] in graph.constants:
            weights[item.output[0]] = graph.constant(item.input[0]), graph.constant(item.input[1])
        elif item.op_type in ("QuantizeLinear", "DequantizeLinear"):
            activations.append((graph.constant(item.input[1]).shape, graph.constant(item.input[2]).dtype))
    convolutions = [item for item in tiny.graph.node if item.op_type == "Conv"]
    assert len(convolutions) == 2
    for conv in convolutions:
        kernel, scales = weights[conv.input[1]]
        assert kernel.dtype == np.int8
        assert scales.shape == kernel.shape[:1]
        assert len(set(scales)) > 1
        # Each filter uses its whole range.
        np.testing.assert_array_equal(np.abs(kernel.astype(int)).max(axis=(1, 2, 3)), 127)
    [gemm] = [item for item in tiny.graph.node if item.op_type == "Gemm"]
    assert weights[gemm.input[1]][0].dtype == np.int8
    assert len(activations) > 4
    assert set(activations) == {((), np.dtype(np.uint8))}


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_only_onnx_operators_of_the_same_opset(opset):
    model = tiny_model()
    model.proto.opset_import[0].version = opset
    before = model.proto.SerializeToString()
    found = int8_of(model)
    onnx.checker.check_model(found, full_check=True)
    assert [(entry.domain, entry.version) for entry in found.opset_import] == [("", opset)]
    assert found.ir_version <= 10
    assert found.producer_name == "birdsonnx"  # `finish` had it
    read = {name for item in found.graph.node for name in item.input}
    assert {value.name for value in found.graph.initializer} <= read
    assert {item.domain for item in found.graph.node} <= {"", "ai.onnx"}
    assert found.graph.input == model.proto.graph.input
    assert found.graph.output == model.proto.graph.output
    assert model.proto.SerializeToString() == before


def test_the_same_photos_give_the_same_file(tiny):
    assert int8_of(tiny_model()).SerializeToString(deterministic=True) == tiny.SerializeToString(
        deterministic=True
    )


def test_metadata_survive_the_file(tiny):
    model = tiny_model(names=("a", "b", "c"))
    history = ({"epoch": 1, "learning_rate": 0.1, "train_loss": 0.5},)
    metadata = model.metadata.having(quantization={"precision": "int8", "photos": 8}, history=history)
    written = BirdModel(tiny, metadata, "int8.onnx").serialized()
    assert parse(written, "int8.onnx").metadata == metadata
    [log_probs] = run(onnx.load_model_from_string(written), photos(3))
    assert log_probs.shape == (3, 3)


def test_quantising_twice_is_refused(tiny):
    assert quantization.is_quantized(tiny)
    assert not quantization.is_quantized(tiny_model().proto)
    with pytest.raises(ModelError, match="it is an int8 model already"):
        quantize(tiny, of_mode("caffe", 3), iter([photos(2)]), "minmax")


def test_what_the_runtime_cannot_quantise_is_one_line():
    with pytest.raises(ModelError, match="onnxruntime cannot quantise it") as caught:
        quantize(tiny_model().proto, of_mode("caffe", 3), iter([photos(2)[:, :5]]), "minmax")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "VALID"}, {"group": 3}])
def test_networks_with_another_stem(options):
    """Those whose first convolution cannot read pixels keep their preprocessing in float32."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(6, 3 // options.get("group", 1), 3, 3)).astype(np.float32)
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv", strides=[2, 2], **options),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["y"]),
    ]
    model = graph_of(nodes, {"w": kernel}, ["batch", 3, SIZE, SIZE], ["batch", 6, 1, 1])
    take_uint8(model.graph, of_mode("caffe", 3))
    found = quantize(model, of_mode("caffe", 3), iter([photos(16)]), "minmax")
    on_uint8 = options.get("auto_pad") == "VALID"
    assert any(item.name.startswith(PREPROCESS) for item in found.graph.node) != on_uint8
    expected = answer(model, photos(8, 1))
    np.testing.assert_allclose(int8_answer(found, photos(8, 1)), expected, atol=0.02 * np.abs(expected).max())


def test_another_reader_of_the_stems_bias_keeps_it():
    generator = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], "one", strides=[2, 2]),
        node("Conv", ["c", "v", "b"], ["y"], "two"),
    ]
    constants = {
        "w": generator.normal(size=(4, 3, 3, 3)) / 255,
        "v": generator.normal(size=(4, 4, 1, 1)),
        "b": generator.normal(size=4),
    }
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    model = graph_of(nodes, constants, ["batch", 3, SIZE, SIZE], ["batch", 4, None, None])
    preprocessing = of_mode("caffe", 3)
    take_uint8(model.graph, preprocessing)
    stem.fold_preprocessing_into_stem(model.graph, preprocessing)
    quantization._onto_int8_grid(model, preprocessing)
    graph = Graph(model.graph)
    one, two = [item for item in model.graph.node if item.op_type == "Conv"]
    np.testing.assert_array_equal(graph.constant(two.input[2]), constants["b"])
    assert graph.constant(one.input[2]).shape == (4,)
    assert not np.array_equal(graph.constant(one.input[2]), constants["b"])


def test_the_stems_bias_takes_up_the_rounding_of_its_weights(monkeypatch):
    """The mean error of the first activations of photos, with it and without."""
    model = tiny_model(mode="caffe")
    graph = Graph(model.proto.graph)
    graph.constants["conv1/bias"].CopyFrom(
        onnx.numpy_helper.from_array(np.full(8, 30, np.float32), "conv1/bias")
    )  # so that the Relu after it cuts hardly anything
    pixels = photos(20, seed=3)
    exact = run(model.proto, pixels, "c1")[1]

    def shift() -> np.ndarray:
        found = int8_of(model)
        float32 = copy.deepcopy(found)
        conv = next(item for item in float32.graph.node if item.op_type == "Conv")
        return np.abs((run(float32, pixels, conv.output[0])[1] - exact).mean(axis=(0, 2, 3)))

    compensated = shift()
    monkeypatch.setattr(quantization, "_onto_int8_grid", lambda *_: None)
    assert compensated.mean() < 0.5 * shift().mean()
