"""rmldnn's inline form of a network: an array of layers, each of which reads the one before.

It becomes the JSON of a Keras Sequential model, as Keras 2 wrote it, which the one reader knows. Free of
TensorFlow, so that an array can be compared with a model's layers without it.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from birdsonnx.config.wording import shown
from birdsonnx.errors import ModelError

SHAPES = ("batch_input_shape", "batch_shape", "input_shape", "shape")
"""Keys of a layer's config that give the network's input; the first two begin with the batch."""
IGNORED = frozenset((*SHAPES, "batch_size", "input_dim", "input_length", "ragged", "sparse"))
"""What Keras 2 wrote of inputs, and Keras 3 does not know as a layer's."""
INPUT = "InputLayer"


def as_sequential(layers: Sequence[Any], where: str) -> dict[str, Any]:
    """The array as the JSON of a Keras model, with a name for every layer: `conv2d`, `conv2d_1`, … as Keras
    gives them.

    Raises:
        ModelError: no chain of layers, or no one shape of the input; names the entry.
    """
    if not layers:
        raise ModelError(f"{where}: the array holds no layer")
    entries = [_entry(layer, f"{where}[{index}]") for index, layer in enumerate(layers)]
    shape = _shape(entries, where)
    names = _names(entries, where)
    chain = [
        {"class_name": INPUT, "config": {"name": _input_name(entries, names), "batch_input_shape": shape}}
    ]
    previous = None
    for index, ((kind, config, inbound), name) in enumerate(zip(entries, names, strict=True)):
        sources = list(dict.fromkeys(_sources(inbound)))
        if sources not in ([], [previous]):
            raise ModelError(
                f"{where}[{index}]: layer {name!r} reads {' and '.join(map(repr, sources))}, but in "
                "an array each layer reads the one before; give such a network as a Keras model object"
            )
        previous = name
        if kind != INPUT:
            kept = {key: value for key, value in config.items() if key not in IGNORED}
            chain.append({"class_name": kind, "config": {**kept, "name": name}})
    return {
        "class_name": "Sequential",
        "keras_version": "2",
        "config": {"name": "sequential", "layers": chain},
    }


def _entry(layer: Any, where: str) -> tuple[str, dict[str, Any], Any]:
    """Class, config and inbound nodes of one entry."""
    kind = layer.get("class_name") if isinstance(layer, dict) else None
    if not isinstance(kind, str) or not kind:
        raise ModelError(
            f'{where}: a layer is an object {{"class_name": "Conv2D", "config": {{…}}}}, got {shown(layer)}'
        )
    config = layer.get("config", {})
    if not isinstance(config, dict):
        raise ModelError(f"{where}: the config of {kind} must be an object, got {shown(config)}")
    name = config.get("name", layer.get("name"))
    if name is not None and (not isinstance(name, str) or not name):
        raise ModelError(f"{where}: the name of {kind} must be a text, got {shown(name)}")
    return kind, {**config, "name": name}, layer.get("inbound_nodes")


def _shape(entries: Sequence[tuple[str, dict[str, Any], Any]], where: str) -> list[int | None]:
    """`[None, height, width, channels]`."""
    found: dict[int, list[int | None]] = {}
    for index, (kind, config, _) in enumerate(entries):
        for key in SHAPES if kind == INPUT else SHAPES[:3]:
            if config.get(key) is not None:
                found[index] = _without_batch(config[key], key, f"{where}[{index}]")
                break
        if kind == INPUT and index:
            raise ModelError(f"{where}[{index}]: an InputLayer can only be the first layer")
    first = 0 if entries[0][0] != INPUT or len(entries) == 1 else 1
    if not any(index <= first for index in found):
        raise ModelError(
            f"{where}: its first layer does not say the shape of a photo; give it a batch_input_shape "
            "such as [null, 28, 28, 1] (height, width, channels)"
        )
    if len({tuple(shape) for shape in found.values()}) > 1:
        each = " and ".join(f"{shown([None, *shape])} in [{index}]" for index, shape in found.items())
        raise ModelError(f"{where}: its layers give two shapes of the input, {each}")
    return [None, *next(iter(found.values()))]


def _without_batch(value: Any, key: str, where: str) -> list[int | None]:
    batched = key in SHAPES[:2]
    whole = isinstance(value, list) and all(side is None or type(side) is int for side in value)
    if (
        not whole
        or len(value) != (4 if batched else 3)
        or any(side is not None and side < 1 for side in value)
    ):
        example = "[null, 28, 28, 1]" if batched else "[28, 28, 1]"
        raise ModelError(
            f"{where}: {key} must be {'batch, ' * batched}height, width and channels such as {example}, got "
            f"{shown(value)}"
        )
    return list(value[1:] if batched else value)


def _names(entries: Sequence[tuple[str, dict[str, Any], Any]], where: str) -> list[str]:
    given = [config["name"] for _, config, _ in entries]
    taken = {name for name in given if name is not None}
    for index, name in enumerate(given):
        if name is not None and name in given[:index]:
            raise ModelError(f"{where}[{index}]: a second layer {name!r}; names must differ")
    names = []
    for (kind, _, _), name in zip(entries, given, strict=True):
        if name is None:
            name = _free(snake_case(kind), taken)
            taken.add(name)
        names.append(name)
    return names


def _input_name(entries: Sequence[tuple[str, dict[str, Any], Any]], names: Sequence[str]) -> str:
    return names[0] if entries[0][0] == INPUT else _free("input_layer", set(names))


def _free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def snake_case(kind: str) -> str:
    """`max_pooling2d` for `MaxPooling2D`, as Keras calls a layer without a name."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^_])(?=[A-Z][a-z])", "_", kind).lower()


def _sources(inbound: Any) -> Iterator[str]:
    """The layers that inbound nodes of Keras 2 (`["name", 0, 0, {}]`) or 3 (`keras_history`) name."""
    if isinstance(inbound, dict):
        for value in inbound.values():
            yield from _sources(value)
    elif isinstance(inbound, list):
        if len(inbound) >= 3 and isinstance(inbound[0], str) and type(inbound[1]) is int:
            yield inbound[0]
        else:
            for value in inbound:
                yield from _sources(value)
