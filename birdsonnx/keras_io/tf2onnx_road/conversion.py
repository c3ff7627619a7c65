"""Keras to a birdsonnx `.onnx`: tf2onnx, then our rewrites, then the parity check."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
from onnx import ModelProto

from birdsonnx import __version__
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import recognition
from birdsonnx.keras_io.conversion import (
    Conversion,
    finished,
    preprocessing_for,
    require_classes,
    settled_mode,
)
from birdsonnx.keras_io.tf2onnx_road import keras_source, naming
from birdsonnx.keras_io.tf2onnx_road.dropout_marks import Marks
from birdsonnx.keras_io.tf2onnx_road.keras_network import (
    KerasNetwork,
    layers_of,
    models_and_layers,
    parameters_of,
    training_notes,
)
from birdsonnx.keras_io.tf2onnx_road.tf2onnx_repairs import (
    dense_as_gemm,
    dense_on_maps,
    erfc_as_erf,
    shapes_as_constants,
    zero_below,
)
from birdsonnx.model.graph import Array
from birdsonnx.model.metadata import Dropout, Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.batch_norm import FoldBatchNorm
from birdsonnx.passes.rewriting import applied_of, apply, declined_of

OPSETS = range(13, 19)
"""What both tf2onnx 1.17 writes and our rewrites know."""

TINY, RANGE = 1e-30, 1e-8
"""Stands for 0 while tf2onnx works; no real weights are all below `TINY / RANGE`, whatever they are folded
with."""


def convert(
    network: KerasNetwork,
    where: str,
    preprocess: str = "auto",
    opset: int = 17,
    classes: Sequence[str] | None = None,
) -> Conversion:
    """Convert, rewrite and compare with Keras.

    Raises:
        ConfigError: an unknown preprocessing or opset, or a class list of another length.
        ModelError: the network is no single-image classifier, or the result differs from Keras.
    """
    if opset not in OPSETS:
        raise ConfigError(f"--opset {opset}: choose {OPSETS.start} to {OPSETS.stop - 1}")
    _, _, channels = input_size(network, where)
    notes = list(network.notes)
    if _compute_in_float32(network.model):
        notes.append("trained with mixed precision; computes in float32, as its weights are")
    proto, rewritten, declined, dropout = graph_of(network, opset, where)
    layers = layers_of(network)
    if preprocess == "auto":
        weighted = {layer.name for layer in layers if layer.kind != "Normalization"}
        steps = [(type(layer).__name__, layer.get_config()) for layer in network.all_layers]
        found = recognition.preprocessing_of(proto, weighted, steps)
        preprocess = settled_mode(found, channels, where, notes)
    before = preprocessing_for(preprocess, channels, where)
    reports = finished(proto, before, where)
    metadata = Metadata(
        preprocessing=before,
        layers=layers,
        trainable=tuple(layer.name for layer in layers if layer.trainable),
        parameters=parameters_of(network),
        dropout=dropout,
        classes=None if classes is None else tuple(classes),
        source=network.source,
        versions={
            "birdsonnx": __version__,
            **{name: version(name) for name in ("keras", "tensorflow-cpu", "tf2onnx", "onnx") if _has(name)},
        },
    )
    model = BirdModel(proto, metadata, where)
    require_classes(model, classes)
    notes += training_notes(network)
    return Conversion(model, rewritten | applied_of(reports), notes, declined | declined_of(reports))


def graph_of(
    network: KerasNetwork, opset: int, where: str
) -> tuple[ModelProto, dict[str, int], dict[str, dict[str, int]], tuple[Dropout, ...]]:
    """The network as a float32 graph, how many nodes each rewrite changed, how many places it left and why,
    and what is dropped in training.

    Raises:
        ModelError: no single-image classifier, or operations that tf2onnx does not know.
    """
    marks = Marks(network.all_layers)
    with _nothing_zero(network):
        proto = _tf2onnx(network.model, input_size(network, where), opset, where, marks)
        graph = proto.graph
        rewritten = {"erfc as erf": erfc_as_erf(graph)}
        reports = [apply(FoldBatchNorm(), graph)]
        rewritten |= applied_of(reports)
        rewritten |= {
            "dense as gemm": dense_as_gemm(graph, _dense_weights(network)),
            "dense on maps": dense_on_maps(proto),
            "shapes as constants": shapes_as_constants(proto),
        }
    zero_below(graph, TINY / RANGE)
    naming.name_weights(graph, {layer.name: type(layer).__name__ for layer in network.all_layers})
    dropout = marks.settle(proto)
    return proto, rewritten, declined_of(reports), dropout


def input_size(network: KerasNetwork, where: str) -> tuple[int, int, int]:
    """`(height, width, channels)` of the network's one image. Raises ModelError for any other input."""
    inputs, outputs = list(network.model.inputs), list(network.model.outputs)
    shape = tuple(inputs[0].shape)
    if len(inputs) != 1 or len(outputs) != 1 or len(shape) != 4 or len(outputs[0].shape) != 2:
        raise ModelError(
            f"{where}: needs one image input and one score per class; inputs {_shapes_of(inputs)}, "
            f"outputs {_shapes_of(outputs)}"
        )
    if outputs[0].shape[1] == 1:
        raise ModelError(
            f"{where}: has one output for two classes; give it a score per class (Dense(2) with softmax)"
        )
    for layer in models_and_layers(network.model):
        _refuse_layer(layer, where)
    height, width, channels = shape[1:]
    if height is None or width is None or channels not in (1, 3):
        raise ModelError(
            f"{where}: the input {shape} must have a fixed height and width and 1 or 3 channels; build the "
            "network with an input_shape such as (224, 224, 3)"
        )
    return height, width, channels


def _refuse_layer(layer: Any, where: str) -> None:
    if getattr(layer, "data_format", None) == "channels_first":
        raise ModelError(
            f"{where}: layer {layer.name!r} is channels_first, which TensorFlow does not compute on a CPU; "
            "build the network with data_format='channels_last' (the weights are the same)"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.>-]+", layer.name):
        raise ModelError(
            f"{where}: TensorFlow cannot run a layer called {layer.name!r}; rename it with letters, digits "
            "and _ . - > only"
        )
    if not hasattr(layer, "layers") and layer.weights and layer.variable_dtype != "float32":
        raise ModelError(f"{where}: layer {layer.name!r} has {layer.variable_dtype} weights, not float32")


def _compute_in_float32(model: Any) -> bool:
    """Let a network that was trained with mixed precision compute in the float32 that its weights have."""
    mixed = [layer for layer in models_and_layers(model) if layer.compute_dtype != "float32"]
    for layer in mixed:
        layer.dtype_policy = "float32"
    return bool(mixed)


def _tf2onnx(model: Any, size: tuple[int, int, int], opset: int, where: str, marks: Marks) -> ModelProto:
    import keras
    import tensorflow as tf
    import tf2onnx

    if isinstance(model, keras.Sequential):  # tf2onnx loses the names of its tensors
        model = keras.Model(model.inputs, model.outputs)
    signature = (tf.TensorSpec((None, *size), tf.float32, name="input"),)
    # Keras wraps grouped convolutions in a function of its own for XLA, which tf2onnx does not look into.
    # Without functions inside the traced one, the convolution itself is in the graph.
    tf.config.run_functions_eagerly(True)
    try:
        with marks.visible():
            proto, _ = tf2onnx.convert.from_keras(
                model,
                input_signature=signature,
                opset=opset,
                inputs_as_nchw=["input"],
                custom_op_handlers=marks.handlers,
            )
    except Exception as error:
        raise ModelError(
            f"{where}: tf2onnx cannot convert this network ({keras_source.one_line(error)})"
        ) from None
    finally:
        tf.config.run_functions_eagerly(False)
    marks.name(proto.graph)
    return proto


@contextmanager
def _nothing_zero(network: KerasNetwork) -> Iterator[None]:
    """Weights of zeros as weights of `TINY` meanwhile: TensorFlow's optimizer drops what adds 0, as biases
    and BatchNorms do until they are trained, and the graph would have nothing there to train or to load."""
    zeros = [weight for layer in network.layers for weight in layer.weights if not np.any(np.asarray(weight))]
    try:
        for weight in zeros:
            weight.assign(np.full(weight.shape, TINY, np.float32))
        yield
    finally:
        for weight in zeros:
            weight.assign(np.zeros(weight.shape, np.float32))


def _dense_weights(network: KerasNetwork) -> dict[str, tuple[Array, Array | None]]:
    """Kernel and bias of each Dense on `[batch, inputs]`; on pictures (ConvNeXt) a Dense is a MatMul."""
    weights = {}
    for layer in network.layers:
        if type(layer).__name__ == "Dense" and len(layer.get_build_config()["input_shape"]) == 2:
            bias = np.asarray(layer.bias) if layer.use_bias else None
            weights[layer.name] = (np.asarray(layer.kernel), bias)
    return weights


def _shapes_of(tensors: Sequence[Any]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec({"tensorflow-cpu": "tensorflow"}.get(package, package)) is not None
