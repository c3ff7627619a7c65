"""The JSON of a Keras model, of either generation, as records. Nothing is looked up, imported or run."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from birdsonnx.config.wording import shown
from birdsonnx.errors import ModelError
from birdsonnx.keras_io import layer_list
from birdsonnx.keras_io.reading.records import OPERATION_KINDS, Call, Layer, Network, Reference

FUNCTIONAL = ("Functional", "Model")
MODELS = (*FUNCTIONAL, "Sequential")
INPUT = "InputLayer"
INPUT_SHAPES = ("batch_shape", "batch_input_shape")
"""Keys of an input's shape with the batch: Keras 3 writes the first, Keras 2 the second."""
MAX_DEPTH = 20
"""Of models in models."""

CONSTANT = "_CONSTANT_VALUE"
"""Keras 2's name for a first argument that is no tensor."""
OWN_REGISTERED = ("Custom>CustomScaleLayer",)
"""Keras' own classes that Keras 2 registered like a user's."""


def parse(content: Any, where: str, version: str | None = None) -> Network:
    """The network that a model's JSON, or rmldnn's array of layers, describes.

    Args:
        content: decoded JSON.
        where: names the source in messages.
        version: of Keras, where the file says it beside the JSON.

    Raises:
        ModelError: the JSON describes no network that can be read.
    """
    if isinstance(content, list):
        content = layer_list.as_sequential(content, where)
    if not isinstance(content, dict) or not isinstance(content.get("class_name"), str):
        raise ModelError(f"{where}: this JSON describes no Keras model")
    version = content.get("keras_version", version)
    parser = _Parser(where, _generation(content, version, where))
    try:
        return parser.network(content, 0)
    except RecursionError:
        raise ModelError(f"{where}: its network description is nested too deeply") from None


def _generation(content: Mapping[str, Any], version: object, where: str) -> int:
    """2 or 3; where no version is given, the way an input's shape is written tells."""
    major = str(version).split(".")[0] if version is not None else ""
    if major in ("2", "3"):
        return int(major)
    if major:
        raise ModelError(f"{where}: written by Keras {shown(version)}; files of Keras 2 and 3 can be read")
    for item in _objects(content):
        config = item.get("config")
        if isinstance(config, dict):
            for key, generation in (("batch_shape", 3), ("batch_input_shape", 2)):
                if key in config:
                    return generation
    return 3 if "module" in content else 2


def _objects(item: Any) -> Iterator[dict[str, Any]]:
    pending = [item]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            yield each
            pending += list(each.values())[::-1]
        elif isinstance(each, list):
            pending += each[::-1]


class _Parser:
    def __init__(self, where: str, generation: int) -> None:
        self._where, self._generation = where, generation
        self._shared: dict[int, Layer] = {}

    def _refuse(self, message: str) -> ModelError:
        return ModelError(f"{self._where}: {message}")

    # --- Models -----------------------------------------------------------------------------------------

    def network(self, entry: Mapping[str, Any], depth: int) -> Network:
        kind, config = entry["class_name"], entry.get("config")
        if kind not in MODELS:
            raise self._refuse(
                f"this network is of the class {kind!r}, which is not Keras' own; a Functional or Sequential "
                "model can be read"
            )
        if isinstance(config, list):  # a Sequential as Keras wrote it before 2.2.3
            config = {"name": "sequential", "layers": config}
        layers = config.get("layers") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(layers, list) or not layers:
            raise self._refuse("this JSON describes no Keras model; its layers are not what Keras writes")
        if depth > MAX_DEPTH:
            raise self._refuse("its network description is nested too deeply")
        name = self._name(config, entry, kind)
        records = [
            self._layer(layer, f"layers[{index}] of {name!r}", depth) for index, layer in enumerate(layers)
        ]
        if kind == "Sequential":
            return self._chain(name, entry, config, records)
        return self._graph(name, kind, config, records)

    def _graph(self, name: str, kind: str, config: Mapping[str, Any], records: list[Layer]) -> Network:
        ends = [self._ends(config.get(key), key) for key in ("input_layers", "output_layers")]
        twice = {layer.name for layer in records if [each.name for each in records].count(layer.name) > 1}
        if twice:
            raise self._refuse(f"model {name!r} has two layers called {min(twice)!r}")
        layers, inputs, outputs = _counted_from_0(records, *ends)
        trainable = config.get("trainable", True) is not False
        return Network(name, kind, self._generation, tuple(layers), tuple(inputs), tuple(outputs), trainable)

    def _chain(
        self, name: str, entry: Mapping[str, Any], config: Mapping[str, Any], records: list[Layer]
    ) -> Network:
        """A Sequential model: each layer reads the one before. Its weights are numbered without its input."""
        if records[0].kind != INPUT:
            shape = self._sequential_shape(entry, config, records[0])
            free = f"{records[0].name}_input"
            records.insert(0, Layer(free, INPUT, {"name": free, "batch_shape": shape}, self._generation))
        layers = [records[0]]
        for before, layer in itertools.pairwise(records):
            layers.append(replace(layer, calls=(Call((Reference(before.name, 0, 0),)),)))
        trainable = config.get("trainable", True) is not False
        first, last = ((Reference(layer.name, 0, 0),) for layer in (layers[0], layers[-1]))
        return Network(name, "Sequential", self._generation, tuple(layers), first, last, trainable)

    @staticmethod
    def _sequential_shape(entry: Mapping[str, Any], config: Mapping[str, Any], first: Layer) -> Any:
        built = entry.get("build_config")
        for source, key in (
            (first.config, "batch_input_shape"),
            (first.config, "batch_shape"),
            (config, "build_input_shape"),
            (built if isinstance(built, dict) else {}, "input_shape"),
        ):
            if source.get(key) is not None:
                return source[key]
        if first.network is not None:  # a model inside: what that one takes
            ends = {layer.name: layer for layer in first.network.layers}
            inner = ends.get(first.network.inputs[0].layer)
            if inner is not None:
                return next((inner.config[key] for key in INPUT_SHAPES if key in inner.config), None)
        return None

    # --- Layers -----------------------------------------------------------------------------------------

    def _layer(self, entry: Any, place: str, depth: int) -> Layer:
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise self._refuse(f"{place} is no layer, got {shown(entry)}")
        config = entry.get("config", {})
        inner = isinstance(config, list) or (
            isinstance(config, dict) and isinstance(config.get("layers"), list)
        )
        if not inner and not isinstance(config, dict):
            raise self._refuse(f"{place}: the config of {entry['class_name']!r} must be an object")
        kind = self._own_class(entry, place)
        name = self._name(config, entry, kind)
        shared = entry.get("shared_object_id")
        nodes = entry.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise self._refuse(f"layer {name!r}: its inbound_nodes must be a list")
        network = self.network(entry, depth + 1) if inner and kind in MODELS else None
        calls = tuple(self._call(node, name, kind) for node in nodes)
        is_operation = kind in OPERATION_KINDS or self._is_operation(entry, config, nodes)
        content = config if isinstance(config, dict) else {"name": name}
        shared = shared if isinstance(shared, int) else None
        return Layer(name, kind, content, self._generation, calls, network, is_operation, shared)

    def _own_class(self, entry: Mapping[str, Any], place: str) -> str:
        """The class name of an entry that is Keras' own."""
        kind: str = entry["class_name"]
        for name in (kind, entry.get("registered_name")):
            if isinstance(name, str) and ">" in name and name not in OWN_REGISTERED:
                raise self._refuse(f"{place} is of the class {name!r}, which is not Keras' own")
        module = entry.get("module")
        if isinstance(module, str) and module.split(".")[0] not in ("keras", "tf_keras"):
            raise self._refuse(f"{place} is of the class {module}.{kind!r}, which is not Keras' own")
        return kind.rpartition(">")[2]

    def _is_operation(self, entry: Mapping[str, Any], config: Any, nodes: Sequence[Any]) -> bool:
        """Whether a Keras 3 entry is a function. A `.h5` has no module, but functions have no dtype."""
        if self._generation < 3 or not isinstance(config, dict) or not nodes:
            return False
        module = entry.get("module")
        if isinstance(module, str):
            return ".ops." in f".{module}."
        told = "dtype" in config and entry["class_name"] != "Cast"  # the one function that has it, too
        return not told and "trainable" not in config and "layers" not in config

    def _name(self, config: Any, entry: Mapping[str, Any], kind: str) -> str:
        name = entry.get("name")
        if name is None and isinstance(config, dict):
            name = config.get("name")
        if name is None:
            name = layer_list.snake_case(kind)
        if not isinstance(name, str) or not name:
            raise self._refuse(f"the name of a {kind} must be a text, got {shown(name)}")
        return name

    # --- Calls ------------------------------------------------------------------------------------------

    def _ends(self, value: Any, key: str) -> tuple[Reference, ...]:
        """`[["name", 0, 0], …]`; Keras 3 may leave the outer list away, and Keras 2 may nest it."""
        if _is_reference(value):
            return (Reference(*value[:3]),)
        if isinstance(value, dict) and all(_is_reference(item) for item in value.values()):
            return tuple(Reference(*item[:3]) for item in value.values())
        if isinstance(value, list) and value and all(_is_reference(item) for item in value):
            return tuple(Reference(*item[:3]) for item in value)
        raise self._refuse(f"{key} of the model must be a list of tensors, got {shown(value)}")

    def _call(self, node: Any, name: str, kind: str) -> Call:
        if isinstance(node, dict):
            keywords = node.get("kwargs", {})
            if not isinstance(node.get("args"), list) or not isinstance(keywords, dict):
                raise self._refuse(f"layer {name!r}: an inbound node must have args and kwargs")
            arguments = tuple(self._value_3(each, name) for each in node["args"])
            return Call(arguments, {key: self._value_3(each, name) for key, each in keywords.items()})
        if not isinstance(node, list) or not node:
            raise self._refuse(f"layer {name!r}: an inbound node must be a list, got {shown(node)}")
        if isinstance(node[0], str):  # the one argument of a function
            first, keywords = self._entry_2(node, name)
            return Call((first,), keywords)
        entries = [self._entry_2(entry, name) for entry in node]
        sources = [source for source, _ in entries]
        # A layer on one tensor and one on a list of one are written alike; a function's are not.
        alone = len(sources) == 1 and kind not in OPERATION_KINDS
        return Call((sources[0] if alone else sources,), entries[0][1])

    def _entry_2(self, entry: Any, name: str) -> tuple[Any, dict[str, Any]]:
        """`["layer", node, tensor, keywords]` of Keras 2, where the first may be a constant."""
        plain = isinstance(entry, list) and len(entry) in (3, 4) and isinstance(entry[0], str)
        keywords = entry[3] if plain and len(entry) == 4 else {}
        if not plain or not isinstance(keywords, dict):
            raise self._refuse(f"layer {name!r}: {shown(entry)} names no tensor")
        values = {key: self._value_2(each) for key, each in keywords.items()}
        if entry[0] == CONSTANT:
            return self._value_2(entry[2]), values
        if not _is_reference(entry[:3]):
            raise self._refuse(f"layer {name!r}: {shown(entry)} names no tensor")
        return Reference(*entry[:3]), values

    def _value_2(self, value: Any) -> Any:
        if _is_reference(value):
            return self._value_2(value[2]) if value[0] == CONSTANT else Reference(*value)
        if isinstance(value, list):
            return [self._value_2(each) for each in value]
        if isinstance(value, dict):
            if value.get("class_name") == "__ellipsis__":
                return Ellipsis
            if value.keys() == {"start", "stop", "step"}:
                return slice(*(self._value_2(value[key]) for key in ("start", "stop", "step")))
        return value

    def _value_3(self, value: Any, name: str) -> Any:
        if isinstance(value, list):
            return [self._value_3(each, name) for each in value]
        if not isinstance(value, dict):
            return value
        kind, config = value.get("class_name"), value.get("config")
        config = config if isinstance(config, dict) else {}
        match kind:
            case "__keras_tensor__" if _is_reference(config.get("keras_history")):
                return Reference(*config["keras_history"])
            case "__numpy__" | "__tensor__":
                try:
                    return np.asarray(config["value"], np.dtype(str(config["dtype"])))
                except (KeyError, TypeError, ValueError):
                    pass
            case "__ellipsis__":
                return Ellipsis
            case "__slice__":
                return slice(*(self._value_3(config.get(key), name) for key in ("start", "stop", "step")))
            case "__tuple__" if isinstance(value.get("items"), list):
                return [self._value_3(each, name) for each in value["items"]]
        raise self._refuse(f"layer {name!r}: its argument {shown(value)} is none that can be read")


def _is_reference(value: Any) -> bool:
    """`["name", node, tensor]`, where a constant has its value in place of the tensor."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and type(value[1]) is int
        and (type(value[2]) is int or value[0] == CONSTANT)
    )


def _references(value: Any) -> Iterator[Reference]:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, Reference):
            yield each
        elif isinstance(each, list | tuple):
            pending += each
        elif isinstance(each, dict):
            pending += each.values()


def _counted_from_0(
    layers: Sequence[Layer], *ends: Sequence[Reference]
) -> tuple[list[Layer], list[Reference], list[Reference]]:
    """Calls of a nested model may count from 1: its first call is then that which built it."""
    models = {layer.name for layer in layers if layer.network is not None}
    first: dict[str, int] = {}
    used = [_references([call.arguments, call.keywords]) for layer in layers for call in layer.calls]
    for reference in (each for group in (*used, *ends) for each in group):
        if reference.layer in models:
            first[reference.layer] = min(reference.call, first.get(reference.layer, reference.call))

    def moved(value: Any) -> Any:
        if isinstance(value, Reference):
            return replace(value, call=value.call - first.get(value.layer, 0))
        if isinstance(value, list):
            return [moved(each) for each in value]
        if isinstance(value, tuple):
            return tuple(moved(each) for each in value)
        if isinstance(value, dict):
            return {key: moved(each) for key, each in value.items()}
        return value

    recounted = [
        replace(layer, calls=tuple(Call(moved(call.arguments), moved(call.keywords)) for call in layer.calls))
        for layer in layers
    ]
    inputs, outputs = (list(moved(end)) for end in ends)
    return recounted, inputs, outputs
