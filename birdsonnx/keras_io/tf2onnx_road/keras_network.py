"""A Keras model and what can be asked of it: its layers, their parameters, what acts in training only."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from birdsonnx.model import transfer
from birdsonnx.model.metadata import Layer, Parameters

MODELS = frozenset(("Functional", "Sequential", "Model"))

TRAINING_ONLY = frozenset(
    (
        "ActivityRegularization",
        "AlphaDropout",
        "AugMix",
        "CutMix",
        "GaussianDropout",
        "GaussianNoise",
        "MixUp",
        "RandAugment",
        "StochasticDepth",
    )
)
"""Layers, beside Dropout and those called Random…, that do nothing in prediction."""


@dataclass(frozen=True)
class KerasNetwork:
    """A Keras model with its weights, and where they came from."""

    model: Any
    source: dict[str, Any]
    """File name and SHA-256 of what was read."""
    notes: list[str] = field(default_factory=list)
    """What the user should know: layers that start from fresh weights."""

    @property
    def layers(self) -> list[Any]:
        """Every layer that holds weights, nested models flattened, in order."""
        return list(_weighted(self.model))

    @property
    def all_layers(self) -> list[Any]:
        """Every layer, with weights or without."""
        return list(flat_layers(self.model))


def layers_json(network: KerasNetwork) -> dict[str, Any]:
    """The network's architecture as Keras 3 JSON."""
    content: dict[str, Any] = json.loads(network.model.to_json())
    return content


def layers_of(network: KerasNetwork) -> tuple[Layer, ...]:
    """The layers that hold weights, as the `.onnx` records them."""
    return tuple(
        Layer(
            layer.name,
            type(layer).__name__,
            getattr(layer, "units", None) or getattr(layer, "filters", None),
            bool(layer.trainable_weights),
        )
        for layer in network.layers
    )


def parameters_of(network: KerasNetwork) -> Parameters:
    """Keras' own counts."""
    statistics = sum(
        int(np.prod(weight.shape))
        for layer in network.layers
        if type(layer).__name__ == "BatchNormalization"
        for weight in (layer.moving_mean, layer.moving_variance)
    )
    trainable = sum(int(np.prod(weight.shape)) for weight in network.model.trainable_weights)
    return Parameters(int(network.model.count_params()), trainable, statistics)


def training_notes(network: KerasNetwork) -> list[str]:
    """What acts in Keras' training, and not here: a line for layers, and one for their regularizers."""
    notes = []
    idle = [layer for layer in network.all_layers if _acts_in_keras_training_only(layer)]
    if idle:
        named = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in idle[:3])
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        notes.append(
            f"{named}{more}: what it does in Keras' training alone is not done here; random transforms "
            "are the config's"
        )
    if network.model.losses:
        notes.append("the layers' regularizers do nothing here; optimizer.weight_decay is for that")
    return notes


def _acts_in_keras_training_only(layer: Any) -> bool:
    kind = type(layer).__name__
    inner = getattr(layer, "_dropout", 0)  # of an attention
    return kind in TRAINING_ONLY or (kind.startswith("Random") and not layer.weights) or bool(inner)


def flat_layers(model: Any) -> Iterator[Any]:
    """Every layer in order, those of nested models in their place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from flat_layers(layer)
        else:
            yield layer


def models_and_layers(model: Any) -> Iterator[Any]:
    """The model, its layers and nested models, and what is in those."""
    yield model
    for layer in getattr(model, "layers", ()):
        yield from models_and_layers(layer)


def _weighted(model: Any) -> Iterator[Any]:
    return (layer for layer in flat_layers(model) if layer.weights)


def shapes_of(weights: Iterable[Any]) -> transfer.Shapes:
    return {str(number): tuple(weight.shape) for number, weight in enumerate(weights)}
