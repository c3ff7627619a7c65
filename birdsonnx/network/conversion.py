"""Keras to a birdsonnx `.onnx`: tf2onnx, then our rewrites, then the parity check."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from birdsonnx import __version__
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.network import keras_source, parity, preprocessing, rewrites, strides
from birdsonnx.network.dropout import Marks
from birdsonnx.network.graph import Array
from birdsonnx.network.keras_source import KerasNetwork
from birdsonnx.network.metadata import Metadata
from birdsonnx.network.model_file import BirdModel

OPSETS = range(13, 19)
"""What both tf2onnx 1.17 writes and our rewrites know."""

TINY, RANGE = 1e-30, 1e-8
"""Stands for 0 while tf2onnx works; no real weights are all below `TINY / RANGE`, whatever they are folded
with."""


@dataclass(frozen=True)
class Conversion:
    """A converted model, and what there is to say about it."""

    model: BirdModel
    parity: parity.Parity
    rewritten: dict[str, int]
    """Nodes changed by each rewrite."""
    notes: list[str]


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
    height, width, channels = _input_size(network, where)
    mode = _mode(network, preprocess, where)
    try:
        before = preprocessing.of_mode(mode, channels)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    marks = Marks(network.all_layers)
    with _nothing_zero(network):
        proto = _tf2onnx(network.model, (height, width, channels), opset, where, marks)
        graph = proto.graph
        rewritten = {
            "batch norm folded": rewrites.fold_batch_norm(graph),
            "pad into max pool": rewrites.pad_into_max_pool(graph),
            "dense as gemm": rewrites.dense_as_gemm(graph, _dense_weights(network)),
            "shapes as constants": rewrites.shapes_as_constants(proto),
        }
    rewrites.zero_below(graph, TINY / RANGE)
    rewrites.name_weights(graph, network.layer_names)
    dropout = marks.settle(proto)
    rewritten["strides moved up"] = strides.move_strides_up(graph)
    rewrites.end_in_log_probs(graph)
    rewrites.take_uint8(graph, before)
    rewrites.finish(proto)

    layers = keras_source.layers_of(network)
    metadata = Metadata(
        preprocessing=before,
        layers=layers,
        trainable=tuple(layer.name for layer in layers if layer.trainable),
        parameters=keras_source.parameters_of(network),
        dropout=dropout,
        classes=None if classes is None else tuple(classes),
        source=network.source,
        versions={
            "birdsonnx": __version__,
            **{name: version(name) for name in ("keras", "tensorflow-cpu", "tf2onnx", "onnx") if _has(name)},
        },
    )
    model = BirdModel(proto, metadata, where)
    if classes is not None and len(classes) != model.num_classes:
        raise ConfigError(f"{where}: the network has {model.num_classes} classes, the labels {len(classes)}")
    found = parity.check(model.serialized(), network.model, mode, where)
    return Conversion(model, found, rewritten, [*network.notes, *keras_source.training_notes(network)])


def _mode(network: KerasNetwork, preprocess: str, where: str) -> str:
    if preprocess != "auto":
        if preprocess not in preprocessing.MODES:
            raise ConfigError(f"--preprocess {preprocess}: choose auto, {', '.join(preprocessing.MODES)}")
        return preprocess
    mode = keras_source.recognise_preprocessing(network.model)
    if mode is None:
        raise ModelError(
            f"{where}: the preprocessing of this network is not recognised from its layers; say which one it "
            f"was trained with: birdsonnx export --preprocess {' | '.join(preprocessing.MODES)}"
        )
    return mode


def _input_size(network: KerasNetwork, where: str) -> tuple[int, int, int]:
    inputs, outputs = list(network.model.inputs), list(network.model.outputs)
    shape = tuple(inputs[0].shape)
    if len(inputs) != 1 or len(outputs) != 1 or len(shape) != 4 or len(outputs[0].shape) != 2:
        raise ModelError(
            f"{where}: needs one image input and one score per class; inputs {_shapes_of(inputs)}, "
            f"outputs {_shapes_of(outputs)}"
        )
    height, width, channels = shape[1:]
    if height is None or width is None or channels not in (1, 3):
        raise ModelError(
            f"{where}: the input {shape} must have a fixed height and width and 1 or 3 channels; build the "
            "network with an input_shape such as (224, 224, 3)"
        )
    return height, width, channels


def _tf2onnx(model: Any, size: tuple[int, int, int], opset: int, where: str, marks: Marks) -> Any:
    import keras
    import tensorflow as tf
    import tf2onnx

    if isinstance(model, keras.Sequential):  # tf2onnx loses the names of its tensors
        model = keras.Model(model.inputs, model.outputs)
    signature = (tf.TensorSpec((None, *size), tf.float32, name="input"),)
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
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{where}: tf2onnx cannot convert this network ({reason})") from None
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


def _dense_weights(network: KerasNetwork) -> dict[str, tuple[Array, Array]]:
    weights = {}
    for layer in network.layers:
        if type(layer).__name__ == "Dense":
            kernel = np.asarray(layer.kernel)
            bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(layer.units, np.float32)
            weights[layer.name] = (kernel, bias)
    return weights


def _shapes_of(tensors: Sequence[Any]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec({"tensorflow-cpu": "tensorflow"}.get(package, package)) is not None
