"""A full model as `.h5`, in the form that Keras 2 writes and both Keras 2 and 3 read.

`model_config` is the network's JSON; `model_weights/<layer>` has a layer's arrays, listed in `weight_names`,
and those of a nested model flat, in the order of `reading.arrays`.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from birdsonnx import artifacts
from birdsonnx.keras_io import layer_list
from birdsonnx.keras_io.reading import KerasFile
from birdsonnx.keras_io.reading.arrays import in_order, wanted
from birdsonnx.keras_io.reading.records import Layer

VERSIONS = {2: "2.15.0", 3: "3.0.0"}
"""Of Keras, where the JSON says none: readers go by the first number."""
ATTRIBUTE_BYTES = 64512
"""Of one attribute; HDF5 has no room for more beside its group."""


def write(file: KerasFile, path: Path) -> None:
    """Write the network with its arrays, whole or not at all. Raises ArtifactError."""
    # In memory first: the HDF5 library does not survive a full disk.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as opened:
        _fill(opened, file)
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _fill(opened: h5py.File, file: KerasFile) -> None:
    content = file.content
    if isinstance(content, list):
        content = layer_list.as_sequential(content, file.where)
    version = str(content.get("keras_version") or VERSIONS[file.network.generation])
    config = {"class_name": content["class_name"], "config": content["config"]}
    opened.attrs["model_config"] = json.dumps(config, allow_nan=False)
    root = opened.create_group("model_weights")
    for group in (opened, root):
        group.attrs["keras_version"] = version
        group.attrs["backend"] = "tensorflow"
    layers = [layer for layer in file.network.layers if not (layer.is_operation and layer.generation == 3)]
    _set_names(root, "layer_names", [layer.name for layer in layers])
    for layer in layers:
        group = root.create_group(layer.name)
        names = []
        for name, value in _arrays(file, layer):
            names.append(name)
            group.create_dataset(name, data=value)
        _set_names(group, "weight_names", names)


def _arrays(file: KerasFile, layer: Layer) -> list[tuple[str, Any]]:
    """The arrays of a layer, or of all layers in a model, by the names that they have in its group."""
    held = in_order(layer, wanted(layer, file.paths, file.variables))
    return [
        (f"{each.path}/{each.variable.role}:0", file.weights[each.path][each.variable.role]) for each in held
    ]


def _set_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """A list of names, divided where it is too long for one attribute, as Keras divides it."""
    encoded = [name.encode() for name in names]
    width = max(map(len, encoded), default=1)
    most = max(ATTRIBUTE_BYTES // width, 1)
    chunks = [encoded[start : start + most] for start in range(0, len(encoded), most)] or [[]]
    for number, chunk in enumerate(chunks):
        name = attribute if len(chunks) == 1 else f"{attribute}{number}"
        group.attrs[name] = np.array(chunk, f"S{width}")
