"""Weights from one network into another: what fits by name and shape, and a line about the rest."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import Array, Graph
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.weight_names import arrays_by_layer
from birdsonnx.model.weights import with_weights

Shapes = Mapping[str, tuple[int, ...]]
"""A layer's weights by name."""
LISTED = 3
"""Layers named in one line."""


@dataclass(frozen=True)
class Fit:
    """Which layers of a network found their weights in a file."""

    taken: tuple[str, ...]
    fresh: Mapping[str, str]
    """Layers of the network that found none, and why."""
    unused: tuple[str, ...]
    """Layers of the file that the network has not."""

    def require(self, frozen: Collection[str], where: str) -> None:
        """Refuse a file that makes no sense for this network.

        Raises:
            ModelError: nothing fits, or one of the `frozen` layers would stay random.
        """
        if not self.taken:
            raise ModelError(
                f"{where}: none of its weights fits this network by name and shape: {_listed(self.fresh)}"
            )
        unfit = {name: why for name, why in self.fresh.items() if name in frozen}
        if unfit:
            raise ModelError(f"{where}: frozen layers get no weights: {_listed(unfit)}")

    def notes(self, where: str) -> list[str]:
        """One line for each direction in which something is left over."""
        notes = []
        if self.fresh:
            starts = "starts" if len(self.fresh) == 1 else "start"
            notes.append(f"{_listed(self.fresh)}: {starts} from fresh weights")
        if self.unused:
            notes.append(f"{where}: the network has no place for {_listed(dict.fromkeys(self.unused, ''))}")
        return notes


def fit(network: Mapping[str, Shapes], file: Mapping[str, Shapes]) -> Fit:
    """Compare two networks' weights, layer by layer."""
    taken = []
    fresh = {}
    for layer, wanted in network.items():
        found = file.get(layer)
        if found == wanted:
            taken.append(layer)
        elif found is None:
            fresh[layer] = "not in the file"
        else:
            fresh[layer] = f"it has {_shown(found)}, the network {_shown(wanted)}"
    return Fit(tuple(taken), fresh, tuple(layer for layer in file if layer not in network))


def transferred(network: BirdModel, checkpoint: BirdModel) -> tuple[BirdModel, Fit]:
    """A network with the weights of those layers of a checkpoint that fit."""
    ours = _by_layer(network)
    theirs = {
        layer: _as_today(weights, ours.get(layer, {})) for layer, weights in _by_layer(checkpoint).items()
    }
    found = fit(*(
        {layer: {name: value.shape for name, value in weights.items()} for layer, weights in model.items()}
        for model in (ours, theirs)
    ))  # fmt: skip
    weights = {name: value for layer in found.taken for name, value in theirs[layer].items()}
    return with_weights(network, weights), found


def _by_layer(model: BirdModel) -> dict[str, dict[str, Array]]:
    """The weights and statistics that the graph holds, by name, of each layer that has any: a BatchNorm that
    was folded has none."""
    graph = Graph(model.proto.graph)
    held = arrays_by_layer(model.proto.graph, {layer.name for layer in model.metadata.layers})
    return {
        layer: {name: numpy_helper.to_array(graph.constants[name]) for name in names}
        for layer, names in held.items()
    }


def _as_today(theirs: Mapping[str, Array], ours: Mapping[str, Array]) -> dict[str, Array]:
    """A layer's weights in the form of today's: the road by tf2onnx gives other axes of length 1, and the
    slope of a PReLU with the other sign and Keras' order of axes."""
    found = {}
    for name, value in theirs.items():
        path, _, role = name.rpartition("/")
        alpha = f"{path}/alpha"
        if role == "negative_alpha" and alpha in ours:
            name = alpha
            value = -(np.moveaxis(value, -1, 0) if value.ndim == ours[alpha].ndim else value)
        wanted = ours[name].shape if name in ours else value.shape
        if _without_ones(value.shape) == _without_ones(wanted):
            value = value.reshape(wanted)
        found[name] = value
    return found


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [side for side in shape if side != 1]


def _shown(shapes: Shapes) -> str:
    """`3x3x8 8`."""
    return " ".join("x".join(map(str, shape)) for shape in shapes.values())


def _listed(layers: Mapping[str, str]) -> str:
    """The first few layers, each with its reason."""
    named = ", ".join(name + (f" ({why})" if why else "") for name, why in list(layers.items())[:LISTED])
    more = len(layers) - LISTED
    return named + (f" and {more} more" if more > 0 else "")
