"""Files that Keras 2 and 3 wrote, each with the answers of the Keras that wrote it, and how to edit them."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from birdsonnx.keras_io.reading import graph_of, read
from tests.graphs import answer

ARCHIVES = {
    generation: Path(__file__).parent / "fixtures" / f"keras{generation}.tar.xz" for generation in (2, 3)
}
PHOTOS = "photos.npy"


@cache
def members(generation: int) -> dict[str, bytes]:
    """The files of one generation, by name."""
    with tarfile.open(ARCHIVES[generation]) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def names() -> list[tuple[int, str]]:
    return [(keras, name) for keras in (2, 3) for name in members(keras) if name.endswith((".h5", ".keras"))]


def file(keras: int, name: str, folder: Path) -> Path:
    """One of the files, in a folder."""
    path = folder / name
    path.write_bytes(members(keras)[name])
    return path


def array(keras: int, name: str) -> np.ndarray:
    return np.load(io.BytesIO(members(keras)[name]))


def wanted(keras: int, name: str) -> np.ndarray:
    """What Keras answers."""
    return array(keras, f"{name.rpartition('.')[0]}.npy")


def answered(path: Path, keras: int, opset: int = 17) -> np.ndarray:
    """What our graph of a file answers to the same photos."""
    photos = array(keras, PHOTOS).transpose(0, 3, 1, 2)
    return answer(graph_of(read(path), opset).model, photos)


def config_of(path: Path) -> Any:
    """The decoded JSON in a file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as opened:
        return json.loads(opened.attrs["model_config"])


def edit_config(path: Path, edit: Callable[[Any], Any]) -> None:
    """Rewrite a file's JSON."""
    config = config_of(path)
    config = edit(config) or config
    set_config_text(path, json.dumps(config))


def set_config_text(path: Path, text: str) -> None:
    """Put a text in place of a file's JSON."""
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r+") as opened:
            opened.attrs["model_config"] = text
        return
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    kept["config.json"] = text.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def edit_arrays(path: Path, edit: Callable[[h5py.File], None]) -> None:
    """Rewrite a file's arrays."""
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r+") as opened:
            edit(opened)
        return
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    stored = io.BytesIO(kept["model.weights.h5"])
    with h5py.File(stored, "r+") as opened:
        edit(opened)
    kept["model.weights.h5"] = stored.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def layers_in(config: Any) -> list[dict[str, Any]]:
    """Every layer's entry in a JSON, those of models inside too."""
    found = []
    for entry in config["config"]["layers"]:
        inside = "layers" in entry["config"]
        found += layers_in(entry) if inside else [entry]
    return found


def first(config: Any, kind: str) -> dict[str, Any]:
    """The first layer of a class."""
    return next(entry for entry in layers_in(config) if entry["class_name"] == kind)
