"""A network with weights from a file that was not made for it: by layer name or by order, the rest fresh."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import arrays, building, containers, fresh
from birdsonnx.keras_io.reading.arrays import Weights
from birdsonnx.keras_io.reading.containers import Container
from birdsonnx.keras_io.reading.keras_file import KerasFile, notes_on
from birdsonnx.keras_io.reading.parsing import parse
from birdsonnx.keras_io.reading.paths import Paths, paths_of
from birdsonnx.keras_io.reading.records import Layer, Network, Variable, leaves
from birdsonnx.model import transfer
from birdsonnx.model.graph import Array

NUMBER = re.compile(r"_\d+$")
"""What Keras adds to a name of its own making; another session counts from another number."""


def read_into(
    content: Any, weights: Path | None, seed: int, where: str, source: dict[str, Any] | None = None
) -> KerasFile:
    """A network with the weights of those layers that a file has; the others start fresh, and are noted.

    Args:
        content: decoded JSON of the network, or rmldnn's array of layers.
        weights: `.h5` with a model or weights alone, `.weights.h5`, or `.keras`; None: all is fresh.
        seed: of the fresh weights.
        where: names the network in messages.
        source: what the network is said to come from, where `weights` is None.

    Raises:
        ModelError: the network or the file cannot be read, nothing fits, or a frozen layer gets no weights.
    """
    network = parse(content, where)
    paths = paths_of(network, where)
    shapes = building.array_shapes(network, paths, where)
    target = _Target(network, paths, shapes, where)
    if weights is None:
        filled = target.filled({}, seed)
        file = KerasFile(where, network, paths, filled, source or {"file": where}, content=content)
        file.notes.extend(notes_on(file))
        return file
    weights = Path(weights)
    with containers.opened(weights) as container:
        found = _found(container, target, zipfile.is_zipfile(weights))
    fit = transfer.fit(target.numbered(), {name: _shapes(each) for name, each in found.items()})
    of_file = {"file": weights.name, "sha256": artifacts.sha256(weights)}
    blank = KerasFile(where, network, paths, {}, of_file, content=content)
    frozen = {path for path, _, trained in blank.leaves if path in shapes and not trained}
    fit.require(frozen, str(weights))
    taken = {path: dict(zip(shapes[path], found[path], strict=True)) for path in fit.taken}
    file = replace(blank, weights=target.filled(taken, seed), notes=fit.notes(str(weights)))
    file.notes.extend(notes_on(file))
    return file


Found = dict[str, list[Array]]
"""Arrays of a file by the path of the network's layer that they are meant for, in the order of its roles;
those of other layers by the name that the file has."""


def _shapes(held: Sequence[Array]) -> transfer.Shapes:
    return {str(number): np.shape(value) for number, value in enumerate(held)}


@dataclass(frozen=True)
class _Target:
    """The network that weights are wanted for."""

    network: Network
    paths: Paths
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
    where: str

    def variables(self, layer: Layer) -> tuple[Variable, ...]:
        return building.variables_of(layer, self.where)

    def numbered(self) -> dict[str, transfer.Shapes]:
        return {
            path: {str(number): shape for number, shape in enumerate(held.values())}
            for path, held in self.shapes.items()
        }

    def filled(self, taken: Weights, seed: int) -> Weights:
        """Weights of every layer, in order: those that are taken, and fresh ones."""
        layers = {self.paths[full]: layer for full, layer in leaves(self.network)}
        return {
            path: taken[path]
            if path in taken
            else {
                role: fresh.array(layers[path], role, shape, seed, path, self.where)
                for role, shape in held.items()
            }
            for path, held in self.shapes.items()
        }

    def fits(self, path: str, held: Sequence[Array]) -> bool:
        return [np.shape(value) for value in held] == list(self.shapes[path].values())

    @property
    def head(self) -> str:
        """The last layer with weights: another number of classes is another layer."""
        return list(self.shapes)[-1] if self.shapes else ""

    def without_head(self) -> Network:
        """The network without its last layer with weights, for its arrays alone. One inside a model stays."""
        kept = [layer for layer in self.network.layers if layer.name != self.head]
        return replace(self.network, layers=tuple(kept))


def _found(container: Container, target: _Target, is_zip: bool) -> Found:
    if any(name in container.file for name in arrays.NUMBERED):
        if container.content is not None and is_zip:
            return _of_full_model(container, target)
        return _of_numbered(container, target)
    by_name = _by_name(container, target)
    missing = {path for path in target.shapes if path not in by_name or not target.fits(path, by_name[path])}
    if missing <= {target.head}:
        return by_name
    by_order = _by_order(container, target)
    if by_order is not None:
        return by_order
    names = [layer.name for _, layer in leaves(target.network) if target.variables(layer)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ModelError(
            f"{container.where}: gives weights by layer name, and the network has two layers called "
            f"{min(twice)!r}"
        )
    return by_name


# --- Files of Keras 3, and .keras files -----------------------------------------------------------------


def _of_full_model(container: Container, target: _Target) -> Found:
    """Arrays by the paths, or else the names, of the layers in the file's own network."""
    network = parse(container.content, container.where, container.version)
    paths = paths_of(network, container.where)
    held = arrays.read(container, network, paths, lambda layer: building.variables_of(layer, container.where))
    ours = {path.rpartition("/")[2]: path for path in target.shapes}
    ours = ours if len(ours) == len(target.shapes) else {}
    found: Found = {}
    for path, each in held.items():
        name = path if path in target.shapes else ours.get(path.rpartition("/")[2], path)
        found[name if name not in found else path] = list(each.values())
    return found


def _of_numbered(container: Container, target: _Target) -> Found:
    """Weights alone, which Keras 3 numbers by class: they must be the network's, save the last layer's."""
    first: ModelError | None = None
    for network in (target.network, target.without_head()):
        try:
            read = arrays.read(container, network, target.paths, target.variables)
        except ModelError as error:
            first = first or error
        else:
            return {path: list(held.values()) for path, held in read.items()}
    assert first is not None
    raise ModelError(f"{first}; these weights do not fit the network")


# --- Files by layer name --------------------------------------------------------------------------------


def _groups(container: Container) -> list[tuple[str, list[tuple[str, h5py.Dataset]]]]:
    """The names of a file's layers that hold arrays, each with the names of those."""
    where, root = container.where, container.file.get("model_weights", container.file)
    found = []
    for name in containers.names_in(root, "layer_names", where):
        group = root[name]
        held = [(each, group[each]) for each in containers.names_in(group, "weight_names", where)]
        if held:
            found.append((name, held))
    return found


def _by_name(container: Container, target: _Target) -> Found:
    """Arrays by layer name; those of a nested model, which share one group, by the names before theirs."""
    places = {"/".join(full): path for full, path in target.paths.items() if path in target.shapes}
    ends: dict[str, set[str]] = {}
    for place, path in places.items():
        ends.setdefault(place.rpartition("/")[2], set()).add(path)
    places |= {path: path for path in target.shapes}
    owned: dict[str, list[tuple[str, Array]]] = {}
    try:
        for group, held in _groups(container):
            for name, dataset in held:
                owner = _owner(group, name.rpartition("/")[0], places, ends)
                owned.setdefault(owner, []).append((name, _number(dataset, container.where)))
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        # h5py raises all of these on groups that are not what the names say, and on damaged data.
        text = " ".join(str(error).split())[:150]
        raise ModelError(f"{container.where}: its weights cannot be read ({text})") from None
    if not owned:
        raise ModelError(f"{container.where}: no weights by layer name in it")
    return {owner: _in_role_order(target.shapes.get(owner, {}), held) for owner, held in owned.items()}


def _owner(group: str, above: str, places: Mapping[str, str], ends: Mapping[str, set[str]]) -> str:
    """Whose an array is, whose name has this `above` its role: one of the network's layers, or another."""
    if group in places or above == group:
        return places.get(group, group)
    last = above.rpartition("/")[2]
    for place in (f"{group}/{above}", above):
        if place in places:
            return places[place]
    return next(iter(ends[last])) if len(ends.get(last, ())) == 1 else last or group


def _number(dataset: Any, where: str) -> Array:
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        raise ModelError(f"{where}: {getattr(dataset, 'name', dataset)} is no array of numbers")
    value = np.asarray(dataset[()])
    return value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value


def _in_role_order(roles: Mapping[str, Any], held: Sequence[tuple[str, Array]]) -> list[Array]:
    """A layer's arrays by what their names say, where they say it, else as they lie."""
    said = [re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2]) for name, _ in held]
    wanted = [role.rpartition("/")[2] for role in roles]
    if len(set(wanted)) == len(wanted) and sorted(said) == sorted(wanted):
        return [held[said.index(role)][1] for role in wanted]
    return [value for _, value in held]


def _by_order(container: Container, target: _Target) -> Found | None:
    """Arrays by the order of layers, as Keras assigns them, where names differ and all shapes fit, save the
    last layer's; None where they do not, or where a name says that an array is another layer's."""
    groups = [name for name, _ in _groups(container)]
    for network in (target.network, target.without_head()):
        names = [layer.name for layer in network.layers if _holds(layer, target)]
        if len(names) != len(groups) or not all(
            theirs not in names or theirs == ours or NUMBER.sub("", theirs) == NUMBER.sub("", ours)
            for theirs, ours in zip(groups, names, strict=True)
        ):
            continue
        try:
            read = arrays.read(container, network, target.paths, target.variables)
        except ModelError:
            continue
        found = {path: list(held.values()) for path, held in read.items()}
        if all(target.fits(path, held) or path == target.head for path, held in found.items()):
            return found
    return None


def _holds(layer: Layer, target: _Target) -> bool:
    if layer.network is not None:
        return any(target.variables(inner) for _, inner in leaves(layer.network))
    return bool(target.variables(layer))
