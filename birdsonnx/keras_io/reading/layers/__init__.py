"""The layers of Keras that can be read, by family: one small function per class, listed in a table.

To add one: write a function from a `Step` to the `Tensor` that comes out, which reads every key of the
layer's config through `step.options`, and put it into the `LAYERS` of its family's file with the arrays that
it holds.
"""

from birdsonnx.keras_io.reading.layers import (
    activations,
    attention,
    convolutions,
    dense,
    merging,
    normalization,
    pooling,
    reshaping,
    resizing,
    training_only,
)
from birdsonnx.keras_io.reading.step import Kind

LAYERS: dict[str, Kind] = {
    **activations.LAYERS,
    **attention.LAYERS,
    **convolutions.LAYERS,
    **dense.LAYERS,
    **merging.LAYERS,
    **normalization.LAYERS,
    **pooling.LAYERS,
    **reshaping.LAYERS,
    **resizing.LAYERS,
    **training_only.LAYERS,
}

RUN_CODE = frozenset(
    ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__", "TensorFlowOpLayer")
)
"""Layers that hold code, which is never run."""

NOT_READ = {
    **dict.fromkeys(
        (
            *("RNN", "SimpleRNN", "LSTM", "GRU", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
            *("TimeDistributed", "CuDNNLSTM", "CuDNNGRU", "StackedRNNCells"),
        ),
        "recurrent layers are not read",
    ),
    "Embedding": "networks of words are not read",
    "ThresholdedReLU": "Keras 3 has no such layer, and no form of it is known here",
    "LocallyConnected1D": "its weights differ at each place, which ONNX has no operation for",
    "LocallyConnected2D": "its weights differ at each place, which ONNX has no operation for",
    "SpectralNormalization": "its kernel is another one at each step of training",
}
"""Layers of Keras that are refused, and why."""
