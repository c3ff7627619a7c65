"""float32 to int8: static QDQ by onnxruntime.quantization, between two rewrites of our own.

Activations are uint8 per tensor, weights int8 per output channel. Leaving the first convolution, the average
or the head in float32 changed neither accuracy nor agreement on 420 photos of 12 species: all of it is int8.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, load

from birdsonnx.errors import BirdsonnxError, ModelError
from birdsonnx.model.graph import Graph, redirect, remove, set_constant
from birdsonnx.model.metadata import INPUT
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.passes import dropout, int32_bias, stem
from birdsonnx.passes.finishing import finish

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)
"""How the range of an activation follows from the photos. `entropy` and `percentile` keep every activation in
memory (50 MB per photo with ResNet50) and take minutes; on the birds here percentile was no better."""
HALF_RANGE = 127
"""int8 weights are symmetric: -127 to 127."""


def quantize(
    model: ModelProto, preprocessing: Preprocessing, batches: Iterable[npt.NDArray[np.uint8]], method: Method
) -> ModelProto:
    """The int8 form of a float32 network that begins with the contract's `images`; same inputs and outputs.

    Args:
        model: is left as it is.
        preprocessing: that of the model.
        batches: photos to calibrate with, uint8 `[batch, height, width, channels]`.
        method: how ranges follow from them.

    Raises:
        ModelError: it is int8 already, or the runtime cannot quantise it.
    """
    if is_quantized(model):
        raise ModelError("it is an int8 model already")
    proto = ModelProto()
    proto.CopyFrom(model)
    dropout.take_out(proto.graph)  # an int8 model is not trained
    on_pixels = stem.fold_preprocessing_into_stem(proto.graph, preprocessing) > 0
    overrides: dict[str, Any] = {}
    if on_pixels:
        _onto_int8_grid(proto, preprocessing)
        exact = {"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}
        overrides = {"TensorQuantOverrides": {stem.PIXELS: [exact]}}
    quantized = _quantize_static(proto, batches, method, overrides)
    int32_bias.bound_bias_scales(quantized, proto)
    if on_pixels:
        _start_on_uint8(quantized)
    finish(quantized)
    return quantized


def is_quantized(model: ModelProto) -> bool:
    """Whether any node computes on quantised values."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


def _quantize_static(
    proto: ModelProto, batches: Iterable[npt.NDArray[np.uint8]], method: Method, overrides: dict[str, Any]
) -> ModelProto:
    from onnxruntime import quantization

    class Photos(quantization.CalibrationDataReader):  # type: ignore[misc] # the package has no types
        def __init__(self) -> None:
            self._batches: Iterator[npt.NDArray[np.uint8]] = iter(batches)
            if method != "minmax":  # histograms need batches of one size
                self._batches = (photo[None] for batch in batches for photo in batch)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    methods = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "entropy": quantization.CalibrationMethod.Entropy,
        "percentile": quantization.CalibrationMethod.Percentile,
    }
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends steps that our graphs have behind them
    try:
        with (
            tempfile.TemporaryDirectory(prefix="birdsonnx-") as folder,
            contextlib.redirect_stdout(io.StringIO()),  # it prints, where --json promises one object
        ):
            float32, int8 = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            float32.write_bytes(proto.SerializeToString())
            quantization.quantize_static(
                str(float32),
                str(int8),
                Photos(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=methods[method],
                extra_options=overrides,
            )
            return load(int8)
    except (BirdsonnxError, OSError, MemoryError):  # of the photos
        raise
    except Exception as error:  # the package raises whatever it meets
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"onnxruntime cannot quantise it ({type(error).__name__}: {reason})") from None
    finally:
        logging.disable(before)


def _onto_int8_grid(proto: ModelProto, preprocessing: Preprocessing) -> None:
    """Round the stem's weights as the quantiser will; its bias takes up what that does to a mean photo.

    Without preprocessing in front, pixels are far from 0 on average, and the rounding errors of a filter's
    weights add up to a shift of all its outputs. Of ResNet50's log-probabilities this takes the mean
    difference to float32 from 0.24 to 0.155.
    """
    graph = Graph(proto.graph)
    [conv] = graph.consumers[stem.PIXELS]
    kernel = np.asarray(graph.constant(conv.input[1]), np.float64)
    step = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / HALF_RANGE
    step[step == 0] = 1
    rounded = np.round(kernel / step) * step
    mean = stem.mean_pixels(preprocessing, kernel.shape[1]).reshape(1, -1, 1, 1)
    shift = ((rounded - kernel) * mean).sum(axis=(1, 2, 3))
    if len(conv.input) < 3:
        conv.input.append(f"{conv.input[1]}/bias")
    bias = graph.constant(conv.input[2])
    if len(graph.consumers.get(conv.input[2], [])) > 1:  # another node has the same bias, and keeps it
        conv.input[2] = f"{stem.STEM}bias"
    set_constant(proto.graph, conv.input[1], rounded.astype(np.float32))
    set_constant(proto.graph, conv.input[2], ((0 if bias is None else bias) - shift).astype(np.float32))


def _start_on_uint8(proto: ModelProto) -> None:
    """Take out the cast to float32 and the quantisation back to the very same uint8."""
    graph = Graph(proto.graph)
    cast = graph.producers[stem.PIXELS]
    for node in graph.consumers[stem.PIXELS]:
        assert node.op_type == "QuantizeLinear"
        redirect(proto.graph, node.output[0], cast.input[0])
        remove(proto.graph, [node])
    remove(proto.graph, [cast])


LONG_SUM = 512
"""Products per output from which the AMX kernels win: on ResNet50's shapes 1.1 to 2.4 x from here on, and
down to 0.4 x below, where writing int32 sums takes longer than computing them."""
LONG_POINTWISE_SUM = 256
"""The same for 1 x 1 convolutions, for which no pixels have to be gathered: 1.03 to 2.4 x from here on."""
MIDDLE = 128


def sums_on_amx(model: ModelProto) -> int:
    """Give convolutions with long sums to the runtime's AMX kernels: int8 weights as uint8 around 128.

    The same numbers (integer sums are exact). The runtime computes convolutions with symmetric int8 weights
    by VNNI even where there is AMX, which only its general matrix product uses: 8.5 instead of 11.6 ms a
    photo of ResNet50 on one core. For use in memory only: without AMX it is slower. Returns how many moved.
    """
    graph = Graph(model.graph)
    moved = 0
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in graph.producers:
            continue
        dequantize = graph.producers[node.input[1]]
        values = [graph.constant(name) for name in dequantize.input]
        if dequantize.op_type != "DequantizeLinear" or len(values) < 3:
            continue
        weights, zero = values[0], values[2]
        if weights is None or zero is None or weights.dtype != np.int8 or zero.any():
            continue
        shared = [name for name in dequantize.input[::2] if len(graph.consumers[name]) > 1]
        long = LONG_POINTWISE_SUM if set(weights.shape[2:]) == {1} else LONG_SUM
        if shared or int(np.prod(weights.shape[1:])) < long:
            continue
        around = (weights.astype(np.int16) + MIDDLE).astype(np.uint8)
        set_constant(model.graph, dequantize.input[0], around)
        set_constant(model.graph, dequantize.input[2], np.full(zero.shape, MIDDLE, np.uint8))
        moved += 1
    return moved
