"""What no Keras file may hold: code that would run, classes of others, links to other files."""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py

from birdsonnx.config.wording import nearest
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.tf2onnx_road.keras_network import MODELS

RUNS_CODE = frozenset(
    ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__", "function")
)

PLAIN_VALUES = frozenset(
    f"__{kind}__" for kind in ("keras_tensor", "tensor", "numpy", "tuple", "ellipsis", "slice")
)
"""Class names that Keras gives to the arguments of layers, which are data."""

OUTSIDE_THE_API = {
    "keras.src.ops.numpy": frozenset(
        (
            *(
                "Absolute",
                "Add",
                "Subtract",
                "Multiply",
                "Divide",
                "TrueDivide",
                "Negative",
                "Power",
                "Square",
            ),
            *("Sqrt", "Maximum", "Minimum", "Clip", "GetItem", "Stack", "Concatenate", "Flip", "Transpose"),
            *("Reshape", "ExpandDims", "Squeeze", "Mean", "Sum", "Max", "Min"),
        )
    ),
    "keras.src.ops.nn": frozenset(
        ("Relu", "Relu6", "Sigmoid", "HardSigmoid", "Silu", "HardSilu", "Gelu", "Softmax", "LogSoftmax")
    ),
    "keras.src.ops.core": frozenset(("Cast",)),
    "keras.src.applications.convnext": frozenset(("LayerScale", "StochasticDepth")),
    "keras.src.applications.inception_resnet_v2": frozenset(("CustomScaleLayer",)),
}
"""Keras' own classes that it does not export, by module: arithmetic in a functional graph, such as that of a
`preprocess_input`, and layers of keras.applications. None of them takes a function."""


def refuse_links(file: h5py.File, path: Path) -> None:
    """Raises ModelError where data would come from another file."""

    def visit(group: h5py.Group) -> Iterator[str]:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                yield f"{group.name}/{name} is a link"
                continue
            child = group[name]
            if isinstance(child, h5py.Group):
                yield from visit(child)
            elif isinstance(child, h5py.Dataset) and (child.external or child.is_virtual):
                yield f"{child.name} is stored elsewhere"

    for problem in visit(file):
        raise ModelError(f"{path}: {problem}; a model file must hold all its data itself")


def _unexported(keras: Any) -> Any:
    """A scope in which Keras finds the layers of keras.applications by the bare name that Keras 2 wrote."""
    applications = (item.split(".")[-1] for item in OUTSIDE_THE_API if ".applications." in item)
    modules = [(importlib.import_module(f"keras.src.applications.{name}"), name) for name in applications]
    return keras.saving.custom_object_scope(
        {
            name: getattr(module, name)
            for module, home in modules
            for name in OUTSIDE_THE_API[f"keras.src.applications.{home}"]
        }
    )


def refuse_foreign_code(config: Any, where: str, keras: Any) -> None:
    """Raises ModelError at the first class that is not Keras' own, or that loads code."""
    homes = (
        keras,
        keras.layers,
        keras.initializers,
        keras.regularizers,
        keras.constraints,
        keras.dtype_policies,
    )
    pending: list[tuple[Any, str]] = [(config, "the model")]
    while pending:
        item, layer = pending.pop()
        if isinstance(item, list):
            pending += [(entry, layer) for entry in item]
        elif isinstance(item, dict):
            inner = item.get("config")
            if isinstance(inner, dict) and "name" in inner:
                layer = f"layer {inner['name']!r}"
            name = item.get("class_name")
            if isinstance(name, str) and name not in PLAIN_VALUES:
                if name in RUNS_CODE:
                    raise ModelError(
                        f"{where}: {layer} is a {name}, which runs code from the file; not loaded"
                    )
                if not _is_keras_own(name, item.get("module"), homes):
                    hint = nearest(name, dir(keras.layers)) if item.get("module") is None else ""
                    raise ModelError(
                        f"{where}: {layer} is of the class {name!r}, which is not Keras' own{hint}"
                    )
            pending += [(entry, layer) for entry in item.values()]


def _is_keras_own(name: str, module: Any, homes: Iterable[Any]) -> bool:
    if any(name in classes and module in (None, home) for home, classes in OUTSIDE_THE_API.items()):
        return True
    exported = name in MODELS or any(hasattr(home, name) for home in homes)
    return exported and (module is None or str(module).split(".")[0] == "keras")
