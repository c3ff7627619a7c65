"""Keras networks small enough for unit tests, and a head of two Dense layers."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from birdsonnx.keras_io.reading import KerasFile, read
from birdsonnx.model.metadata import Layer
from birdsonnx.model.model_file import BirdModel
from tests.tiny import FEATURES, tiny_model

keras_warns = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # Keras' own variables under NumPy 2
)


def small_network(keras: Any, activation: str | None = "softmax", units: int = 4, size: int = 24) -> Any:
    """A residual network: padding, pooling, BatchNorm with statistics that a comparison can see, Dense."""
    keras.utils.set_random_seed(7)
    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="photo")
    x = layers.ZeroPadding2D(2, name="stem_pad")(inputs)
    x = layers.Conv2D(8, 5, strides=2, name="stem_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool")(x)
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="block_conv")(x)
    y = layers.BatchNormalization(name="block_bn")(y)
    x = layers.Add(name="block_add")([x, y])
    x = layers.Activation("relu", name="block_out")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(inputs, layers.Dense(units, activation=activation, name="dense")(x))
    generator = np.random.default_rng(3)
    for layer in model.layers:
        values = [generator.normal(0.1, 0.3, weight.shape) for weight in layer.weights]
        if layer.name.endswith("_bn"):  # gamma, beta, mean, variance
            values[0], values[3] = values[0] + 1, np.abs(values[3]) + 0.5
        if layer.name == "stem_conv":
            values[0] /= 64  # pixels of up to 255
        if layer.name == "dense":
            values[0] /= 16  # or a float32 softmax is 0 and 1
        layer.set_weights(values)
        layer.trainable = layer.name == "dense"
    return model


def keras_answers(model: Any, values: np.ndarray) -> np.ndarray:
    """What a Keras model says to a batch, layer by layer: `predict` compiles a graph first, which takes
    longer than all the rest of a small network's test."""
    answers: np.ndarray = model(values.astype(np.float32), training=False).numpy()
    return answers


def as_read(model: Any, suffix: str = ".keras") -> KerasFile:
    """What our reader finds in the file that Keras writes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{suffix}"
        model.save(path)
        return read(path)


def keras_2_json(model: Any) -> dict[str, Any]:
    """The network as Keras 2.8 wrote it: no modules, other inbound nodes, `batch_input_shape`."""
    layer = _keras_2_layer(json.loads(model.to_json()))
    versions = {"keras_version": "2.8.0", "backend": "tensorflow"}
    return {"class_name": layer["class_name"], "config": layer["config"], **versions}


def _keras_2_layer(layer: dict[str, Any]) -> dict[str, Any]:
    kind, config = layer["class_name"], layer["config"]
    if "layers" in config:
        inner = [_keras_2_layer(item) for item in config["layers"]]
        ends = {"input_layers": [[inner[0]["name"], 0, 0]], "output_layers": [[inner[-1]["name"], 0, 0]]}
        config = {"name": config["name"], "layers": inner, **(ends if kind == "Functional" else {})}
    else:
        config = {key: value for key, value in config.items() if not isinstance(value, dict)}
    if kind == "InputLayer":
        config["batch_input_shape"] = config.pop("batch_shape")
    written = {"class_name": kind, "config": config, "name": config["name"]}
    if "inbound_nodes" in layer:
        sources = [
            tensor["config"]["keras_history"] for node in layer["inbound_nodes"] for tensor in _tensors(node)
        ]
        inbound = [[name, index, tensor, {}] for name, index, tensor in sources]
        written["inbound_nodes"] = [inbound] if sources else []
    return written


def _tensors(node: Any) -> list[Any]:
    [first] = node["args"]
    return first if isinstance(first, list) else [first]


def two_dense() -> BirdModel:
    """The tiny network with a hidden Dense and a Relu in front of its last Dense."""
    model = tiny_model()
    graph, generator = model.proto.graph, np.random.default_rng(5)
    for name, shape in (("hidden/kernel", (FEATURES, FEATURES)), ("hidden/bias", (FEATURES,))):
        value = generator.normal(size=shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(value, name))
    at = next(index for index, node in enumerate(graph.node) if node.op_type == "Gemm")
    inputs = [graph.node[at].input[0], "hidden/kernel", "hidden/bias"]
    graph.node[at].input[0] = "hr"
    graph.node.insert(at, helper.make_node("Relu", ["h"], ["hr"], "hidden/Relu"))
    graph.node.insert(at, helper.make_node("Gemm", inputs, ["h"], "hidden/Gemm"))
    *before, last = model.metadata.layers
    layers = (*before, Layer("hidden", "Dense", FEATURES, True), last)
    return BirdModel(model.proto, model.metadata.having(layers=layers), "two")
