"""Keras' own model of a network that we have read, to compare with. Needs the `export` extra."""

from pathlib import Path
from typing import Any

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import KerasFile
from birdsonnx.keras_io.tf2onnx_road import keras_source
from birdsonnx.keras_io.tf2onnx_road.keras_network import flat_layers


def model_of_file(path: Path) -> Any:
    """A full model as Keras loads it. Raises ModelError where it cannot."""
    return keras_source.full_model(path).model


def model_like(file: KerasFile) -> Any:
    """The network that Keras makes of the same JSON, with the weights that we have.

    Raises:
        ModelError: Keras cannot build it, or builds other layers.
    """
    model = keras_source.from_layers(file.content, file.where, None, seed=0).model
    built = {id(layer): layer for layer in flat_layers(model) if layer.weights}.values()
    ours = [(path, layer) for path, layer, _ in file.leaves if file.variables(layer)]
    names = [layer.name for layer in built]
    if names != [layer.name for _, layer in ours]:
        raise ModelError(f"{file.where}: Keras builds other layers with weights")
    for layer, (path, record) in zip(built, ours, strict=True):
        held = file.weights[path]
        try:
            layer.set_weights([held[variable.role] for variable in file.variables(record)])
        except ValueError as error:
            raise ModelError(f"{file.where}: {path}: {keras_source.one_line(error)}") from None
        if hasattr(layer, "finalize_state"):  # a Normalization, which computes with what it made of them
            layer.finalize_state()
    return model
