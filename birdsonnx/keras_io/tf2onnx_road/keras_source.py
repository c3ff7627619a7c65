"""Keras networks from files: what is read, what is refused, and how their input wants to be preprocessed.

TensorFlow is imported here, inside functions, and nowhere else in birdsonnx. No code of a file ever runs:
every class in its config must be one of Keras' own, and none of those that load code.
"""

import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from birdsonnx import artifacts
from birdsonnx.errors import InstallationError, ModelError
from birdsonnx.extras import how_to_install
from birdsonnx.keras_io import layer_list
from birdsonnx.keras_io.reading import containers
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork, shapes_of
from birdsonnx.keras_io.tf2onnx_road.safety import _unexported, refuse_foreign_code, refuse_links
from birdsonnx.model import transfer
from birdsonnx.model.graph import Array
from birdsonnx.runtime import library_folders

MAX_JSON_BYTES = 64 * 2**20

Architecture = dict[str, Any] | list[Any]
"""A Keras model JSON, or an array of layers."""


def import_keras() -> Any:
    """Keras on TensorFlow, quiet and on the CPU.

    Raises:
        InstallationError: the `export` extra is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Where it uses oneDNN, TensorFlow says so on stderr before it reads its log level.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with library_folders.given_to_keras():
            import keras
            import tensorflow  # noqa: F401
            import tf2onnx  # noqa: F401
    except ImportError as error:
        raise InstallationError(
            f"this needs Keras with TensorFlow, and tf2onnx ({error}); {how_to_install('export')}"
        ) from None
    for name in ("tensorflow", "absl", "keras"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It calls an error what our rewrites mend (erfc), and raises what nothing mends.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    keras.config.disable_interactive_logging()  # a download would speak on stdout, which --json owns
    return keras


def full_model(path: Path) -> KerasNetwork:
    """A complete `.h5` or `.keras` file: architecture and weights.

    Raises:
        ModelError: missing, truncated, weights only, or with classes that are not Keras' own.
    """
    config = read_config(path)
    if config is None:
        raise ModelError(f"{path}: this file holds weights only; give the network too (--layers layers.json)")
    keras = import_keras()
    refuse_foreign_code(_as_model(config, str(path)), str(path), keras)
    try:
        if zipfile.is_zipfile(path):
            with _unexported(keras):
                model = keras.models.load_model(path, compile=False, safe_mode=True)
        else:
            from keras.src.legacy.saving.legacy_h5_format import load_weights_from_hdf5_group

            model = _model_of_keras_2(keras, _as_model(config, str(path)))
            with h5py.File(path, "r") as file:
                load_weights_from_hdf5_group(file["model_weights"], model)
    except Exception as error:  # Keras raises many kinds; all mean the same here
        raise ModelError(f"{path}: Keras cannot load this model ({one_line(error)})") from None
    return KerasNetwork(model, {"file": path.name, "sha256": artifacts.sha256(path)})


def from_layers(
    config: Architecture,
    where: str,
    weights: Path | None,
    seed: int,
    source: dict[str, Any] | None = None,
) -> KerasNetwork:
    """The network of a Keras 2 or 3 JSON, or of an array of layers, with weights by layer name from
    `weights`.

    Raises:
        ModelError: no Keras model, or frozen layers that get no weights.
    """
    entries = config if isinstance(config, list) else []
    content = _as_model(config, where)
    keras = import_keras()
    for index, entry in enumerate(entries):
        refuse_foreign_code(entry, f"{where}[{index}]", keras)
    refuse_foreign_code(content, where, keras)
    keras.utils.set_random_seed(seed % 2**32)
    try:
        model = _built(content, keras)
    except Exception as error:
        if entries:
            where = f"{where}[{_first_that_fails(entries, where, keras)}]"
        raise ModelError(f"{where}: Keras cannot build this network ({one_line(error)})") from None
    network = KerasNetwork(model, source or {"file": where})
    return network if weights is None else with_weights(network, weights)


def _built(config: Mapping[str, Any], keras: Any) -> Any:
    if str(config.get("keras_version", "3")).startswith("3") or "module" in config:
        with _unexported(keras):
            return keras.models.model_from_json(json.dumps(config, allow_nan=False))
    return _model_of_keras_2(keras, config)


def _model_of_keras_2(keras: Any, config: Mapping[str, Any]) -> Any:
    """The network of a config as Keras 2 wrote it and Keras 3 still writes it into `.h5` files.

    Keras 3's public reader of JSON refuses these; the one behind its reader of `.h5` does not.
    """
    from keras.src.legacy.saving import json_utils, saving_options, saving_utils
    from keras.src.saving.serialization_lib import SafeModeScope

    decoded = json_utils.decode(json.dumps(_with_single_ends(config), allow_nan=False))
    with _unexported(keras), saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        return saving_utils.model_from_config(decoded)


def _with_single_ends(config: Any) -> Any:
    """Keras 2 lists the one input and output of a nested model; Keras 3 then hands lists of one tensor on,
    which no layer of a Sequential takes ("expects 1 input(s), but it received 2")."""
    if isinstance(config, list):
        return [_with_single_ends(item) for item in config]
    if not isinstance(config, dict):
        return config
    ends = {key: config[key][0] for key in ("input_layers", "output_layers") if len(config.get(key, ())) == 1}
    return {key: _with_single_ends(ends.get(key, value)) for key, value in config.items()}


def _first_that_fails(entries: Sequence[Any], where: str, keras: Any) -> int:
    """The index of the layer that Keras cannot build, or cannot put behind those in front of it."""
    for count in range(1, len(entries)):
        try:
            _built(layer_list.as_sequential(entries[:count], where), keras)
        except Exception:  # whatever Keras raises, or a network of nothing but an input
            if count > 1:
                return count - 1
    return len(entries) - 1


def with_weights(network: KerasNetwork, path: Path) -> KerasNetwork:
    """Copy weights by layer name. A trainable layer without weights, or with others' shapes, starts fresh
    and is noted, and so is what the file holds of other layers.

    Raises:
        ModelError: the file is unreadable, nothing fits, or a frozen layer would stay random.
    """
    source = {"file": path.name, "sha256": artifacts.sha256(_existing(path))}
    if path.name.endswith(".weights.h5"):
        try:
            network.model.load_weights(path)
        except Exception as error:
            raise ModelError(f"{path}: these weights do not fit the network ({one_line(error)})") from None
        return KerasNetwork(network.model, source)
    names = [layer.name for layer in network.layers]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ModelError(
            f"{path}: gives weights by layer name, and the network has two layers called {min(twice)!r}"
        )
    found = _weights_by_layer(path, set(names))
    wanted = {layer.name: shapes_of(layer.weights) for layer in network.layers}
    fit = transfer.fit(wanted, {name: shapes_of(weights) for name, weights in found.items()})
    fit.require({layer.name for layer in network.layers if not layer.trainable}, str(path))
    for layer in network.layers:
        if layer.name in fit.taken:
            layer.set_weights(found[layer.name])
    return KerasNetwork(network.model, source, [*fit.notes(str(path)), *network.notes])


def read_config(path: Path) -> dict[str, Any] | None:
    """The architecture that a `.h5` or `.keras` file holds, or None where it holds weights only.

    Raises:
        ModelError: missing, truncated, foreign, or with links to other files.
    """
    _existing(path)
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > MAX_JSON_BYTES:
                    raise ModelError(f"{path}: its config.json is too large to be a network")
                text = archive.read("config.json")
                with archive.open("model.weights.h5") as weights, h5py.File(weights, "r") as file:
                    refuse_links(file, path)
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path}: not a complete .keras file ({one_line(error)})") from None
        return _model_object(_json(text, str(path)), str(path))
    try:
        with h5py.File(path, "r") as file:
            refuse_links(file, path)
            text = file.attrs.get("model_config")
    except OSError:
        raise ModelError(
            f"{path}: not a complete Keras file (.h5 or .keras; truncated, or of another kind)"
        ) from None
    return None if text is None else _model_object(_json(text, str(path)), str(path))


def read_layers(path: Path) -> Architecture:
    """A Keras model JSON, or an array of layers. Raises ModelError."""
    if _existing(path).stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{path}: too large to be a network's JSON")
    content = _json(path.read_bytes(), str(path))
    _as_model(content, str(path))
    return content  # type: ignore[no-any-return] # it is one of the two


def layers_in(config: Architecture, where: str) -> list[tuple[str, str, int | None]]:
    """`(name, class, units or filters)` of each layer in a Keras model JSON or an array of layers, nested
    models flattened. Raises ModelError."""
    return list(_described(_as_model(config, where), where))


def input_size_in(config: Architecture, where: str) -> tuple[int, ...] | None:
    """`(height, width, channels)` of a network's input, where its JSON says it in full. Raises ModelError."""
    for layer in _entries(_as_model(config, where), where):
        for key in layer_list.SHAPES[:2]:
            shape = layer.get("config", {}).get(key)
            if isinstance(shape, list) and len(shape) == 4 and all(type(side) is int for side in shape[1:]):
                return tuple(shape[1:])
    return None


def _as_model(config: Architecture, where: str) -> dict[str, Any]:
    """The network alone: how it was compiled is never read, so its optimizer and losses may be anything."""
    if isinstance(config, list):
        return layer_list.as_sequential(config, where)
    content = _model_object(config, where)
    return {key: value for key, value in content.items() if key != "compile_config"}


def _described(model: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, int | None]]:
    for layer in _entries(model, where):
        inner = layer.get("config", {})
        if isinstance(inner.get("layers"), list):
            yield from _described(layer, where)
        else:
            units = inner.get("units", inner.get("filters"))
            yield str(inner.get("name", layer.get("name"))), str(layer.get("class_name")), units


def _entries(model: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    config = model.get("config")
    layers = config.get("layers", []) if isinstance(config, dict) else None
    plain = isinstance(layers, list) and all(
        isinstance(layer, dict) and isinstance(layer.get("config", {}), dict) for layer in layers
    )
    if not plain:
        raise ModelError(f"{where}: this JSON describes no Keras model; its layers are not what Keras writes")
    return list(layers or ())


def _weights_by_layer(path: Path, known: set[str]) -> dict[str, list[Array]]:
    """The arrays of each layer; those of a nested model, which shares one group, go to its `known` layers."""
    config = read_config(path)
    if config is not None and zipfile.is_zipfile(path):
        return {layer.name: layer.get_weights() for layer in full_model(path).layers}
    weights: dict[str, list[Array]] = {}
    try:
        with h5py.File(path, "r") as file:
            groups = file.get("model_weights", file)
            for layer in _names(groups, "layer_names"):
                group = groups[layer]
                for name in _names(group, "weight_names"):
                    owner = layer if layer in known else (["", *name.split("/")])[-2]
                    weights.setdefault(owner, []).append(np.asarray(group[name]))
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        # h5py raises all of these on groups that are not what the names say, and on damaged data.
        raise ModelError(f"{path}: its weights cannot be read ({one_line(error)})") from None
    if not weights:
        raise ModelError(f"{path}: no weights by layer name in it")
    return weights


def _names(group: Any, attribute: str) -> list[str]:
    """A name list; Keras splits long ones over `<attribute>0`, `<attribute>1`, …"""
    if attribute in group.attrs:
        chunks = [group.attrs[attribute]]
    else:
        count = sum(f"{attribute}{index}" in group.attrs for index in range(len(group.attrs)))
        chunks = [group.attrs[f"{attribute}{index}"] for index in range(count)]
    return [name.decode() if isinstance(name, bytes) else str(name) for chunk in chunks for name in chunk]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    return path


def _json(text: Any, where: str) -> Any:
    if not isinstance(text, str | bytes):
        raise ModelError(f"{where}: its network description is no text")
    return containers.decoded(text, where)


def _model_object(config: Any, where: str) -> dict[str, Any]:
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise ModelError(f"{where}: this JSON describes no Keras model")
    return config


BOLD = re.compile(r"\x1b\[[0-9;]*m")
"""Keras writes some messages in bold, even where there is no terminal."""


def one_line(error: BaseException) -> str:
    text = " ".join(BOLD.sub("", str(error)).split()) or type(error).__name__
    text = text.rpartition("Exception encountered: ")[2]  # Keras puts the cause behind the whole config
    return text if len(text) <= 200 else text[:197] + "…"
