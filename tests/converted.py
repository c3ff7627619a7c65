"""Keras files as birdsonnx models, by the reader and the passes of an export, without Keras."""

from pathlib import Path
from typing import Any

from birdsonnx.keras_io.reading import KerasFile, graph_of, read
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.finishing import finish
from birdsonnx.passes.log_probs_output import end_in_log_probs
from birdsonnx.passes.max_pool_padding import PadIntoMaxPool
from birdsonnx.passes.rewriting import apply
from birdsonnx.passes.strides import move_strides_up
from birdsonnx.passes.uint8_input import take_uint8


def bird_model(path: Path, layers: Any = None, mode: str = "none", opset: int = 17) -> BirdModel:
    """The model of a Keras file."""
    return of_file(read(path, layers), mode, opset)


def of_file(file: KerasFile, mode: str = "none", opset: int = 17) -> BirdModel:
    """The model of a file that was read."""
    made = graph_of(file, opset)
    graph = made.model.graph
    apply(PadIntoMaxPool(), graph)
    move_strides_up(graph)
    before = of_mode(mode, file.input_size[2])
    end_in_log_probs(made.model)
    take_uint8(graph, before)
    finish(made.model)
    metadata = Metadata(
        preprocessing=before,
        layers=file.layers,
        trainable=tuple(layer.name for layer in file.layers if layer.trainable),
        parameters=file.parameters,
        dropout=made.dropout,
    )
    return BirdModel(made.model, metadata, Path(file.where).name)
