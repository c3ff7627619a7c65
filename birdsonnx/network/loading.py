"""The network that `checkpoints.load` names, whatever kind of file that is."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from birdsonnx import __version__, artifacts
from birdsonnx.config import Normalize, Settings, nearest
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.network import keras_source, model_file
from birdsonnx.network.model_file import BirdModel
from birdsonnx.network.preprocessing import of_normalize

Say = Callable[[str], None]

KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
WEIGHTED = ("Conv", "Dense", "BatchNormalization")
"""Class names of layers that hold weights contain one of these."""


def to_train(settings: Settings, say: Say) -> BirdModel:
    """The model that `checkpoints.load` names, behind the preprocessing that the config asks for.

    A Keras file is converted, once: the result is kept in the cache folder, if there is one.

    Raises:
        ConfigError: no `load`, or a file of an unknown kind.
        ModelError: a file that cannot be used, or that does not fit `layers`.
    """
    if settings.checkpoints.load is None:
        raise ConfigError(
            "neural_network.checkpoints.load: this key is required to train: an .onnx of 'birdsonnx export', "
            "or a Keras .h5 or .keras file"
        )
    model = _load(checkpoint_file(settings.checkpoints.load, say), settings, say)
    if model.metadata.quantization is not None:
        raise ModelError(
            f"{model.where}: an int8 model cannot be trained; train the float32 model and quantise it again"
        )
    return model


def to_predict(settings: Settings, say: Say) -> tuple[Path | bytes, str]:
    """The same for prediction, and its name in messages: the file as it is where the config changes nothing
    of it (the caller compares `layers`), else the model's content."""
    assert settings.checkpoints.load is not None
    path = checkpoint_file(settings.checkpoints.load, say)
    if path.suffix.lower() not in KERAS_SUFFIXES and _normalize(settings) is None:
        return path, str(path)
    return _load(path, settings, say).serialized(), str(path)


def _load(path: Path, settings: Settings, say: Say) -> BirdModel:
    if path.suffix.lower() in KERAS_SUFFIXES:
        model = _converted(path, settings, say)
    else:
        model = model_file.load(path)
        compare_layers(model.metadata.layers, settings.layers, str(path), say)
    normalize = _normalize(settings)
    if normalize is None:
        return model
    try:
        return model.with_preprocessing(of_normalize(normalize, model.input_size[2]))
    except ValueError as error:
        raise ConfigError(f"neural_network.data.transforms: {error}") from None


def _normalize(settings: Settings) -> Normalize | None:
    return next((step for step in settings.data.transforms or () if isinstance(step, Normalize)), None)


def checkpoint_file(name: str, say: Say) -> Path:
    """The file that `load` means: a `.pt` name is rmldnn's, and stands for the `.onnx` of the same stem.

    Raises:
        ConfigError: a suffix that is none of .onnx, .h5, .keras, .pt.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix == ".pt":
        onnx = path.with_suffix(".onnx")
        say(f"{path} names a libtorch file; loading {onnx} instead")
        return onnx
    if suffix != ".onnx" and suffix not in KERAS_SUFFIXES:
        raise ConfigError(f"neural_network.checkpoints.load: {name!r} is none of .onnx, .h5, .keras")
    return path


def compare_layers(known: tuple[Any, ...], layers: str | dict[str, Any] | None, where: str, say: Say) -> None:
    """Compare a model's layers (names, units) with the config's `layers`; an absent file is one line.

    Raises:
        ModelError: a layer that only one of them has, or with another width.
    """
    if layers is None:
        return
    if isinstance(layers, str):
        if not Path(layers).is_file():
            say(f"{layers} is not there; not needed: {where} holds the whole network")
            return
        config = keras_source.read_layers(Path(layers))
        source = layers
    else:
        config, source = layers, "neural_network.layers"
    described = {
        name: units
        for name, kind, units in keras_source.layers_in(config)
        if any(part in kind for part in WEIGHTED)
    }
    ours = {layer.name: layer.units for layer in known}
    for name in described.keys() ^ ours.keys():
        has, lacks = (source, where) if name in described else (where, source)
        raise ModelError(f"{has} has a layer {name!r} that {lacks} has not{nearest(name, ours)}")
    for name, units in described.items():
        if units != ours[name]:
            raise ModelError(
                f"layer {name!r} has {units} units in {source} and {ours[name]} in {where}; "
                "they are different networks"
            )


def _converted(path: Path, settings: Settings, say: Say) -> BirdModel:
    layers = settings.layers
    if isinstance(layers, str):
        config: dict[str, Any] | None = keras_source.read_layers(Path(layers))
    else:
        config = layers
    keras_source.read_config(path)  # refuse a damaged file before TensorFlow takes its seconds
    seed = settings.birdsonnx.seed
    # A normalize transform replaces the network's own preprocessing, which then need not be recognised.
    preprocess = "auto" if _normalize(settings) is None else "none"
    facts = [artifacts.sha256(path), config, seed, preprocess, __version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    cache = settings.birdsonnx.cache_folder
    kept = None if cache is None else cache / f"converted-{digest}.onnx"
    if kept is not None and kept.is_file():
        say(f"{path}: converted before, loading {kept}")
        return model_file.load(kept)

    from birdsonnx.network import conversion  # imports TensorFlow's helpers

    say(f"converting {path} to ONNX (about half a minute for a ResNet50)")
    if config is None:
        network = keras_source.full_model(path)
    else:
        where = layers if isinstance(layers, str) else "neural_network.layers"
        network = keras_source.from_layers(config, where, path, seed)
    converted = conversion.convert(network, str(path), preprocess)
    for note in converted.notes:
        say(note)
    say(f"same answers as Keras: {converted.parity}")
    if kept is not None:
        converted.model.save(kept)
    # Read back from its own bytes, so that a first run and a later one start from the very same model.
    return model_file.parse(converted.model.serialized(), str(path))
