"""Every layer, trained through: gradients of the graphs of Keras' files, against finite differences in
float64."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from birdsonnx.errors import ConfigError
from birdsonnx.keras_io.reading import KerasFile, graph_of, read
from birdsonnx.model.edits import put_first, set_constant, set_inputs, set_outputs
from birdsonnx.model.metadata import Layer, Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.finishing import finish
from birdsonnx.passes.uint8_input import NETWORK_INPUT, take_uint8
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network
from tests.keras_io.reading import written
from tests.passes.gradient_forms.test_preparing import Erf
from tests.training.test_gradients import in_float64

CLASSES, PHOTOS = 3, 2
STEP = 1e-6
"""In float64: errors of the order of 1e-9."""
NO_GRADIENT = {"ConvTranspose": "transposed"}
"""Operations that remain without one, and what the files that have them are called."""
BOTH = sorted({(2, name) for keras, name in written.names() if keras == 2 and name.endswith(".h5")}
    | {(3, name) for keras, name in written.names() if keras == 3 and name.endswith(".keras")})  # fmt: skip


def between_two_layers(file: KerasFile) -> BirdModel:
    """A file's network behind a convolution, `front`, and before a Dense, `head`: all of it is trained
    through, whatever it holds and gives."""
    generator = np.random.default_rng(0)
    made = graph_of(file)
    graph, (height, width, channels) = made.model.graph, file.input_size
    sides = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim][1:]
    size = int(np.prod(sides))
    for node in graph.node:
        node.input[:] = ["front/Conv:0" if name == NETWORK_INPUT else name for name in node.input]
    kernel = np.eye(channels) + generator.normal(0, 0.1, (channels, channels))
    constants = {
        "front/kernel": kernel.reshape(channels, channels, 1, 1) / 128,
        "front/bias": generator.normal(-1, 0.1, channels),
        "head/kernel": generator.normal(0, 1 / np.sqrt(size), (size, CLASSES)),
        "head/bias": np.zeros(CLASSES),
    }
    for name, value in constants.items():
        set_constant(graph, name, value.astype(np.float32))
    set_constant(graph, "head/Reshape/input_1", np.array([-1, size], np.int64))
    last = graph.output[0].name
    last = "front/Conv:0" if last == NETWORK_INPUT else last
    front = ["input", "front/kernel", "front/bias"]
    put_first(graph, [helper.make_node("Conv", front, ["front/Conv:0"], "front/Conv", kernel_shape=[1, 1])])
    dense = ["head/flat", "head/kernel", "head/bias"]
    graph.node.extend(
        [
            helper.make_node("Reshape", [last, "head/Reshape/input_1"], ["head/flat"], "head/Reshape"),
            helper.make_node("Gemm", dense, ["logits"], "head/Gemm"),
            helper.make_node("LogSoftmax", ["logits"], ["log_probs"], "log_softmax", axis=-1),
        ]
    )
    set_inputs(graph, [floats("input", channels, height, width)])
    set_outputs(graph, [floats("log_probs", CLASSES)])
    take_uint8(graph, of_mode("none", channels), "input")
    finish(made.model)
    ends = (Layer("front", "Conv2D", channels, True), Layer("head", "Dense", CLASSES, True))
    metadata = Metadata(of_mode("none", channels), (*ends, *file.layers), (), file.parameters)
    return BirdModel(made.model, metadata, "fixture")


def floats(name, *sides):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sides])


def evaluator_of(model: ModelProto, weights) -> ReferenceEvaluator:
    """The graph in float64, whose weights are inputs."""
    wide = in_float64(model)
    for tensor in [tensor for tensor in wide.graph.initializer if tensor.name in weights]:
        wide.graph.initializer.remove(tensor)
        wide.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, TensorProto.DOUBLE, tensor.dims)
        )
    return ReferenceEvaluator(wide, new_ops=[Erf])


@pytest.mark.parametrize(("keras_version", "name"), BOTH, ids=str)
def test_every_layer_can_be_trained_through(keras_version, name, tmp_path):
    model = between_two_layers(read(written.file(keras_version, name, tmp_path)))
    for operation, files in NO_GRADIENT.items():
        if files in name:
            with pytest.raises(ConfigError, match=f"is a {operation}, which has no gradient"):
                Network(model, [layer.name for layer in model.metadata.layers])
            return
    network = Network(model, [layer.name for layer in model.metadata.layers])
    part = network.divide(network.boundaries()[-1])
    weights, loss = FlatWeights(part.weights), Loss(np.ones(CLASSES, np.float32), 0, 0)
    weights.set(part.weights)
    generator = np.random.default_rng(1)
    photos = generator.integers(0, 256, (PHOTOS, *part.row_shape), np.uint8)
    targets = loss.targets(np.arange(PHOTOS))
    feeds = {part.source: photos, TARGETS: targets}
    total = Gradients(part, loss, weights, 1).sum_over([0, 1], lambda rows: {
        key: value[list(rows)] for key, value in feeds.items()
    }).total  # fmt: skip
    evaluator = evaluator_of(part.trainable, weights.named)
    wide = {key: value.astype(np.float64) for key, value in weights.named.items()}

    def loss_of(key, index, step):
        nudged = wide[key].copy()
        nudged.flat[index] += step
        [log_probs] = evaluator.run(None, {part.source: photos, **wide, key: nudged})
        return -float((targets * log_probs).sum())

    for key, value in weights.views_of(total).items():
        for index in {int(np.abs(value).argmax()), int(generator.integers(value.size))}:
            difference = (loss_of(key, index, STEP) - loss_of(key, index, -STEP)) / (2 * STEP)
            allowed = 1e-4 * float(np.abs(value).max()) + 1e-6
            assert value.flat[index] == pytest.approx(difference, rel=1e-3, abs=allowed), key
