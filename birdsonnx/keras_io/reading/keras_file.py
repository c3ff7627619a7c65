"""A Keras file as it is: its network, its arrays, and what there is to say about them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from onnx import ModelProto

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import arrays, building, containers
from birdsonnx.keras_io.reading.arrays import Weights
from birdsonnx.keras_io.reading.containers import Container
from birdsonnx.keras_io.reading.layers import LAYERS
from birdsonnx.keras_io.reading.options import precision
from birdsonnx.keras_io.reading.parsing import parse
from birdsonnx.keras_io.reading.paths import Full, Paths, paths_of
from birdsonnx.keras_io.reading.records import Layer, Network, Variable, leaves
from birdsonnx.model import foreign_files
from birdsonnx.model.metadata import Dropout, Parameters
from birdsonnx.model.metadata import Layer as Described
from birdsonnx.passes.rewriting import Report


@dataclass(frozen=True)
class KerasGraph:
    """A network as ONNX."""

    model: ModelProto
    """float32 `[batch, channels, height, width]` to what Keras' network gives."""
    dropout: tuple[Dropout, ...]
    """Its Dropout nodes, in order."""
    batch_norms: Report
    """Which of them are part of a convolution, and why the others are not."""


@dataclass(frozen=True)
class KerasFile:
    """A network with its arrays, read from a file."""

    where: str
    """Names it in messages."""
    network: Network
    paths: Paths
    weights: Weights
    """By the path of the layer, then by role, as Keras has them."""
    source: dict[str, Any]
    """File name and SHA-256 of what was read."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""
    content: Any = None
    """The JSON of the network, decoded."""

    @cached_property
    def leaves(self) -> list[tuple[str, Layer, bool]]:
        """Path, record, and whether it is trained, of every layer that is no model; each once."""
        found: dict[str, tuple[str, Layer, bool]] = {}
        frozen = {full for full, network in _models(self.network) if not network.trainable}
        for full, layer in leaves(self.network):
            around = {full[:length] for length in range(len(full))}
            trained = layer.trainable and not frozen.intersection(around)
            found.setdefault(self.paths[full], (self.paths[full], layer, trained))
        return list(found.values())

    @property
    def layers(self) -> tuple[Described, ...]:
        """The layers that hold weights, as the `.onnx` records them."""
        return tuple(
            Described(path, layer.kind, layer.width, trained and _has_trained(variables))
            for path, layer, trained in self.leaves
            if (variables := self.variables(layer))
        )

    @property
    def parameters(self) -> Parameters:
        """Keras' own counts."""
        total = trainable = statistics = 0
        for path, layer, trained in self.leaves:
            for variable in self.variables(layer):
                size = int(self.weights[path][variable.role].size)
                total += size
                trainable += size if trained and variable.trainable else 0
                statistics += size if variable.role.startswith("moving_") else 0
        return Parameters(total, trainable, statistics)

    @property
    def input_size(self) -> tuple[int, int, int]:
        """`(height, width, channels)`. Raises ModelError where the network takes no one image."""
        return building.input_size(self.network, self.where)

    def variables(self, layer: Layer) -> tuple[Variable, ...]:
        """The arrays that a layer holds, in Keras' order."""
        return building.variables_of(layer, self.where)


def read(path: Path, layers_json: Path | Any | None = None, weights: Path | None = None) -> KerasFile:
    """A network and its arrays.

    Args:
        path: `.h5` or `.keras`, a full model; or weights alone, where `layers_json` gives the network; or a
            network's JSON, where `weights` gives the arrays.
        layers_json: a network's JSON, as a file or decoded, in place of the one in `path`.
        weights: a file with the arrays, in place of those in `path`.

    Raises:
        ModelError: what is there cannot be read; names the layer and what of it.
    """
    path = Path(path)
    if layers_json is None and path.suffix == ".json":
        layers_json = path
    content, where = None, str(path)
    if isinstance(layers_json, Path | str):
        content, where = containers.read_json(Path(layers_json)), str(layers_json)
    elif layers_json is not None:
        content, where = layers_json, "layers"
    held = weights if weights is not None else path
    with containers.opened(Path(held)) as container:
        network = parse(
            container.content if content is None else content, where, _version(container, content)
        )
        paths = paths_of(network, where)
        found = arrays.read(container, network, paths, _variables(where))
    source = {"file": Path(held).name, "sha256": artifacts.sha256(Path(held))}
    said = container.content if content is None else content
    file = KerasFile(where, network, paths, found, source, content=said)
    file.notes.extend(notes_on(file))
    return file


def _version(container: Container, content: Any) -> str | None:
    if container.content is None and content is None:
        refusal = foreign_files.what_to_do(Path(container.where), "keras")
        raise ModelError(f"{container.where}: {refusal or 'it holds no network'}")
    return container.version if content is None else None


def _variables(where: str) -> Callable[[Layer], tuple[Variable, ...]]:
    return lambda layer: building.variables_of(layer, where)


def graph_of(file: KerasFile, opset: int = 17, fold: bool = True) -> KerasGraph:
    """The network as a graph of `ai.onnx` operations of this opset; with `fold`, each BatchNorm is part of
    the convolution in front of it where there is one.

    Raises:
        ModelError: it takes no one image, or a layer of it cannot be read.
    """
    return KerasGraph(*building.model_of(file.network, file.weights, file.paths, opset, file.where, fold))


def _models(network: Network, full: Full = ()) -> list[tuple[Full, Network]]:
    """A model and those inside it, each behind the names around it."""
    found = [(full, network)]
    for layer in network.layers:
        if layer.network is not None:
            found += _models(layer.network, (*full, layer.name))
    return found


def _has_trained(variables: tuple[Variable, ...]) -> bool:
    return any(variable.trainable for variable in variables)


def notes_on(file: KerasFile) -> list[str]:
    """What acts in Keras' training and not here, and what is computed otherwise."""
    notes = []
    idle = [(path, layer) for path, layer, _ in file.leaves if _acts_in_keras_training_only(layer)]
    if idle:
        named = ", ".join(f"{path} ({layer.kind})" for path, layer in idle[:3])
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        notes.append(
            f"{named}{more}: what it does in Keras' training alone is not done here; random transforms "
            "are the config's"
        )
    regularized = any(
        value and key.endswith("_regularizer")
        for _, layer, _ in file.leaves
        for key, value in layer.config.items()
    )
    if regularized:
        notes.append("the layers' regularizers do nothing here; optimizer.weight_decay is for that")
    others = {precision(layer.config.get("dtype")) for _, layer, _ in file.leaves if file.variables(layer)}
    others.discard("float32")
    if any(name.startswith("mixed") for name in others):
        notes.append("trained with mixed precision; computes in float32, as its weights are")
    elif others:
        notes.append(f"its weights are {min(others)}; computes in float32")
    return notes


def _acts_in_keras_training_only(layer: Layer) -> bool:
    known = not layer.is_operation and layer.kind in LAYERS
    return known and (LAYERS[layer.kind].acts_in_training_only or bool(layer.config.get("dropout")))
