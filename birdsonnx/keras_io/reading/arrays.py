"""The arrays of a Keras file, given to the layers that they belong to.

Keras assigns by order, and so do these: names break where a layer was renamed. Where a name says what an
array is (`gamma`), it must say what the order says. Every array must be used, and every layer filled.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import containers
from birdsonnx.keras_io.reading.containers import Container
from birdsonnx.keras_io.reading.parsing import INPUT
from birdsonnx.keras_io.reading.paths import Full, Paths
from birdsonnx.keras_io.reading.records import Layer, Network, Variable, leaves
from birdsonnx.model.graph import Array

Weights = dict[str, dict[str, Array]]
"""Arrays by the path of their layer and their role."""
Variables = Callable[[Layer], tuple[Variable, ...]]
"""What a layer holds."""

DOUBLED = "_layer_checkpoint_dependencies"
NUMBERED = ("layers", DOUBLED)
"""The group of a model's layers in the numbered format; the second is that of Keras 2.12."""
RANDOM_STATE = re.compile(r"(^|/)_?(seed_generator|random_generator|_random_generator)/")
"""Arrays of a layer that hold no weights: where its random numbers go on."""
OWN = "top_level_model_weights"
"""Where arrays of a model itself are, that belong to no layer."""
OTHERS = re.compile(r"/optimizer_weights/")
"""What a file may hold beside the network."""


def read(container: Container, network: Network, paths: Paths, variables: Variables) -> Weights:
    """All arrays of an open file, by the layer of the network that holds them.

    Raises:
        ModelError: the file's arrays are not those of this network.
    """
    try:
        if any(name in container.file for name in NUMBERED):
            return _Numbered(container, network, paths, variables).weights
        return _named(container, network, paths, variables)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        # h5py raises all of these on groups that are not what the names say, and on damaged data.
        text = " ".join(str(error).split())[:150]
        raise ModelError(f"{container.where}: its weights cannot be read ({text})") from None


def _array(dataset: h5py.Dataset, variable: Variable, owner: str, where: str) -> Array:
    """An array as float32; networks of mixed precision keep theirs so anyway."""
    if not isinstance(dataset, h5py.Dataset):
        raise ModelError(f"{where}: {variable.role} of layer {owner!r} is no array")
    if variable.role == "count":
        return np.asarray(dataset[()])
    if dataset.dtype.kind != "f":
        raise ModelError(
            f"{where}: {variable.role} of layer {owner!r} is {dataset.dtype}; what can be read are "
            "floating-point numbers"
        )
    return np.asarray(dataset[()], np.float32)


# --- Keras 3, and .keras files since 2.12 ---------------------------------------------------------------


class _Numbered:
    """`layers/conv2d_1/vars/0`: numbered by class in the order of the config, nested as the models are."""

    def __init__(self, container: Container, network: Network, paths: Paths, variables: Variables) -> None:
        self._where, self._paths, self._variables = container.where, paths, variables
        self._used: set[str] = set()
        self._met: set[int] = set()
        self.weights: Weights = {}
        self._model(network, container.file, ())
        root = next(name for name in NUMBERED if name in container.file)
        for top in (root, "vars"):
            for path, dataset in containers.datasets(container.file[top]) if top in container.file else ():
                if dataset.name not in self._used and not RANDOM_STATE.search(path):
                    raise ModelError(f"{self._where}: no layer of the network wants its array {dataset.name}")

    def _model(self, network: Network, group: h5py.Group, above: Full) -> None:
        inside: Any = next((group[name] for name in NUMBERED if name in group), {})
        times: dict[str, int] = {}
        for layer in network.layers:
            if (layer.is_operation and layer.generation == 3) or (
                network.kind == "Sequential" and layer.kind == INPUT
            ):
                continue
            name = keras_snake_case(layer.kind)
            number = times.get(name, 0)
            # Keras 2.12 counts a layer that holds arrays twice, and keeps them under its first number.
            twice = DOUBLED in group and bool(wanted(layer, self._paths, self._variables, above))
            times[name] = number + (2 if twice else 1)
            name = f"{name}_{number}" if number else name
            if layer.shared in self._met:  # its arrays are where it was met first
                continue
            if layer.shared is not None:
                self._met.add(layer.shared)
            if layer.network is not None:
                self._model(layer.network, inside.get(name, {}), (*above, layer.name))
            else:
                self._layer(layer, inside.get(name, {}), (*above, layer.name))

    def _layer(self, layer: Layer, group: h5py.Group, full: Full) -> None:
        found: dict[str, Array] = {}
        next_in: dict[str, int] = {}
        for variable in self._variables(layer):
            part = variable.part
            holder = group if not part else group.get(part, group.get(f"_{part}", {}))
            number = next_in.get(part, 0)
            next_in[part] = number + 1
            dataset = holder.get("vars", {}).get(str(number))
            if dataset is None:
                raise ModelError(f"{self._where}: no {variable.role} for layer {layer.name!r} ({layer.kind})")
            self._used.add(dataset.name)
            found[variable.role] = _array(dataset, variable, layer.name, self._where)
        if found:
            self.weights[self._paths[full]] = found


def keras_snake_case(kind: str) -> str:
    """A class name as Keras writes it into numbered groups."""
    text = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", text).lower()


# --- .h5 files, and save_weights of Keras 2 -------------------------------------------------------------


def _named(container: Container, network: Network, paths: Paths, variables: Variables) -> Weights:
    """`model_weights/<layer>` with `weight_names`; a nested model lies flat in one group."""
    where, root = container.where, container.file.get("model_weights", container.file)
    if OWN in root and containers.names_in(root[OWN], "weight_names", where):
        raise ModelError(f"{where}: its model holds arrays that belong to no layer; such models are not read")
    groups = [(name, _listed(root[name], where)) for name in containers.names_in(root, "layer_names", where)]
    groups = [(name, arrays) for name, arrays in groups if arrays]
    # A group may hold that of another layer: `Conv` and `Conv/BatchNorm` are two layers of MobileNetV3.
    unlisted = {each.name for _, each in containers.datasets(root) if not OTHERS.match(each.name)}
    unlisted -= {each.name for _, arrays in groups for _, each in arrays}
    if unlisted:
        raise ModelError(f"{where}: no layer of the network wants its array {min(unlisted)}")
    layers = [(layer, wanted(layer, paths, variables)) for layer in network.layers]
    layers = [(layer, held) for layer, held in layers if held]
    if len(groups) != len(layers):
        raise ModelError(
            f"{where}: it holds arrays of {len(groups)} layers, the network has {len(layers)} layers with "
            f"weights{_odd_one_out([name for name, _ in groups], [layer.name for layer, _ in layers])}"
        )
    weights: Weights = {}
    for (layer, held), (name, arrays) in zip(layers, groups, strict=True):
        _fill(weights, in_order(layer, held), name, arrays, where)
    return weights


def _odd_one_out(found: Sequence[str], wanted: Sequence[str]) -> str:
    odd = [name for name in (*found, *wanted) if (name in found) != (name in wanted)]
    return f"; only one of them has {odd[0]!r}" if odd else ""


def _listed(group: h5py.Group, where: str) -> list[tuple[str, h5py.Dataset]]:
    """The arrays of one group in the order of their list."""
    return [(name, group[name]) for name in containers.names_in(group, "weight_names", where)]


class Held(NamedTuple):
    """An array that a layer wants."""

    path: str
    layer: Layer
    variable: Variable


def wanted(layer: Layer, paths: Paths, variables: Variables, above: Full = ()) -> list[Held]:
    """All that a layer, or a model's layers, hold, in the order of the layers; nothing twice."""
    full = (*above, layer.name)
    inner = [(full, layer)] if layer.network is None else leaves(layer.network, full)
    held = [Held(paths[place], leaf, each) for place, leaf in inner for each in variables(leaf)]
    return list({(each.path, each.variable.role): each for each in reversed(held)}.values())[::-1]


def in_order(layer: Layer, held: list[Held]) -> list[Held]:
    """What a group holds, in its order: all that is trained, layer by layer, and then the rest. Keras 3 does
    not divide where the model itself is frozen."""
    if layer.generation == 3 and not layer.trainable:
        return held
    trained = [each.variable.trainable and each.layer.trainable for each in held]
    first = [each for each, is_first in zip(held, trained, strict=True) if is_first]
    return first + [each for each, is_first in zip(held, trained, strict=True) if not is_first]


def _fill(
    weights: Weights,
    held: Sequence[Held],
    group: str,
    arrays: Sequence[tuple[str, h5py.Dataset]],
    where: str,
) -> None:
    if len(held) != len(arrays):
        raise ModelError(
            f"{where}: group {group!r} holds {len(arrays)} arrays, that part of the network has {len(held)}"
        )
    roles: dict[str, set[str]] = {}
    for each in held:
        roles.setdefault(each.path, set()).add(each.variable.role.rpartition("/")[2])
    for each, (name, dataset) in zip(held, arrays, strict=True):
        role = each.variable.role
        said = re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])
        if said in roles[each.path] and said != role.rpartition("/")[2]:
            raise ModelError(
                f"{where}: layer {each.layer.name!r} should have its {role} where the file has {name!r}; "
                "its arrays are not in the order that Keras writes"
            )
        weights.setdefault(each.path, {})[role] = _array(dataset, each.variable, each.layer.name, where)
