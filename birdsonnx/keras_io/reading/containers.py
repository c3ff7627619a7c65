"""Keras' files opened safely: the JSON and the HDF5 groups of a `.h5`, a `.keras` or a weights file.

Sizes are looked at before anything is allocated, links are not followed, and nothing is unpickled.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from birdsonnx.config import json_text
from birdsonnx.errors import ModelError
from birdsonnx.model import foreign_files, h5_safety
from birdsonnx.model.h5_safety import MAX_EXPANSION, SMALL_BYTES

MAX_JSON_BYTES = 64 * 2**20
INCOMPLETE = "not a complete Keras file (.h5 or .keras; truncated, or of another kind)"
CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"


@dataclass(frozen=True)
class Container:
    """An open Keras file."""

    where: str
    content: Any
    """Decoded JSON of the network; None where the file holds weights only."""
    version: str | None
    """Of the Keras that wrote it."""
    file: h5py.File
    """The HDF5 file, or that inside the zip."""


@contextmanager
def opened(path: Path) -> Iterator[Container]:
    """Open a `.h5`, `.keras` or `.weights.h5` file.

    Raises:
        ModelError: it is missing, damaged, of another kind, or says that it is larger than it can be.
    """
    where = str(path)
    if not path.is_file():
        raise ModelError(f"{where}: there is no such file")
    if zipfile.is_zipfile(path):
        with _zipped(path) as container:
            yield container
        return
    try:
        file = h5py.File(path, "r")
    except OSError:
        refusal = foreign_files.what_to_do(path, "keras") or INCOMPLETE
        raise ModelError(f"{where}: {refusal}") from None
    with file:
        _require_self_contained(file, where, path.stat().st_size)
        text = _attribute_text(file, "model_config", where)
        groups = file.get("model_weights", file)
        version = _attribute_text(file, "keras_version", where) or _attribute_text(
            groups, "keras_version", where
        )
        yield Container(where, None if text is None else decoded(text, where), version, file)


@contextmanager
def _zipped(path: Path) -> Iterator[Container]:
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            refusal = None if CONFIG in names else foreign_files.what_to_do(path, "keras")
            if refusal is not None:
                raise ModelError(f"{where}: {refusal}")
            if WEIGHTS not in names and any(name.endswith(".npz") for name in names):
                raise ModelError(
                    f"{where}: its weights are a .npz; save the model again with Keras as it is installed"
                )
            text = _member(archive, CONFIG, where, MAX_JSON_BYTES)
            metadata = _member(archive, METADATA, where, MAX_JSON_BYTES) if METADATA in names else b"{}"
            weights = _member(archive, WEIGHTS, where)
        known = decoded(metadata, where)
        version = known.get("keras_version") if isinstance(known, dict) else None
        with h5py.File(io.BytesIO(weights), "r") as file:
            _require_self_contained(file, where, len(weights))
            yield Container(where, decoded(text, where), version if isinstance(version, str) else None, file)
    except (KeyError, NotImplementedError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{where}: not a complete .keras file ({_one_line(error)})") from None


def _member(archive: zipfile.ZipFile, name: str, where: str, limit: int | None = None) -> bytes:
    """The bytes of a member, whose sizes are those of its header or less."""
    info = archive.getinfo(name)
    stored = Path(archive.filename or "").stat().st_size
    if info.compress_size > stored or info.file_size > MAX_EXPANSION * info.compress_size + SMALL_BYTES:
        raise ModelError(f"{where}: its {name} says it is far larger than what is stored of it; not read")
    if limit is not None and info.file_size > limit:
        raise ModelError(f"{where}: its {name} is too large to be a network")
    with archive.open(info) as member:
        return member.read(info.file_size)


def decoded(text: str | bytes, where: str) -> Any:
    """The JSON of a network. Raises ModelError, also for NaN and infinity: JSON has them not, and what is
    written of it would hold others (`--save-layers`), or what few can read (`export --to keras`)."""
    if len(text) > MAX_JSON_BYTES:
        raise ModelError(f"{where}: its network description is too large")
    try:
        return json_text.decoded(text if isinstance(text, str) else text.decode("utf-8-sig"), any_case=False)
    except ValueError as error:
        raise ModelError(f"{where}: its network description is not valid JSON ({_one_line(error)})") from None


def read_json(path: Path) -> Any:
    """A network's JSON from a file of its own. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{path}: too large to be a network's JSON")
    return decoded(path.read_bytes(), str(path))


def datasets(group: h5py.Group, above: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """Every array below a group, with its path."""
    for name, child in group.items():
        path = f"{above}{name}"
        if isinstance(child, h5py.Group):
            yield from datasets(child, f"{path}/")
        else:
            yield path, child


def names_in(group: h5py.Group, attribute: str, where: str) -> list[str]:
    """A list of names; Keras splits long ones over `<attribute>0`, `<attribute>1`, …"""
    if attribute in group.attrs:
        chunks = [group.attrs[attribute]]
    else:
        chunks = []
        while f"{attribute}{len(chunks)}" in group.attrs:
            chunks.append(group.attrs[f"{attribute}{len(chunks)}"])
    names = [name for chunk in chunks for name in np.asarray(chunk).reshape(-1).tolist()]
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError:
        raise ModelError(f"{where}: the names of its weights are not valid UTF-8") from None


def _attribute_text(group: h5py.Group, name: str, where: str) -> str | None:
    value = group.attrs.get(name)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ModelError(f"{where}: its {name} is not valid UTF-8") from None
    return value if isinstance(value, str) else None


def _require_self_contained(file: h5py.File, where: str, stored: int) -> None:
    try:
        h5_safety.self_contained(file, stored, "a model file")
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "…"
