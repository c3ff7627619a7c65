"""The network that a config asks for: what `checkpoints.load` names, what `layers` describe, or both."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from birdsonnx import __version__, artifacts
from birdsonnx.config.section import nearest
from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import Normalize
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import keras_source, recognition
from birdsonnx.keras_io.keras_network import KerasNetwork
from birdsonnx.keras_io.keras_source import Architecture
from birdsonnx.model import model_file, transfer
from birdsonnx.model.metadata import Layer, Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing, of_normalize
from birdsonnx.model.trainable import trainable_layers
from birdsonnx.passes.uint8_input import with_preprocessing

Say = Callable[[str], None]

KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
CONVERTERS = ("keras", "tf2onnx", "onnx", "tensorflow-cpu", "tensorflow")
"""Packages that read Keras files and make the graph; the last two are the same program."""
WEIGHTED = ("Conv", "Dense", "BatchNormalization")
"""Class names of layers that hold weights contain one of these."""


def to_train(settings: Settings, say: Say) -> BirdModel:
    """The network to train, behind the preprocessing that the config asks for: what `checkpoints.load` names;
    with `layers` beside it that describe another network, that one, with the weights that fit; with `layers`
    alone, that network from fresh weights.

    What Keras builds is converted once: the result is kept in the cache folder, if there is one.

    Raises:
        ConfigError: neither `load` nor `layers`, or a file of an unknown kind.
        ModelError: a file that cannot be used, or that does not fit `layers`.
    """
    if settings.checkpoints.load is not None:
        path = checkpoint_file(settings.checkpoints.load, say)
        model = _load(path, settings, say, may_differ=True)
    elif settings.layers is not None:
        model = with_normalize(_fresh(settings, say), settings)
    else:
        raise ConfigError(
            "neural_network: there is no network to train; give checkpoints.load (an .onnx of 'birdsonnx "
            "export', or a Keras .h5 or .keras file), or layers to train one from fresh weights"
        )
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


def _load(path: Path, settings: Settings, say: Say, may_differ: bool = False) -> BirdModel:
    """What a file holds; with `may_differ`, `layers` beside an `.onnx` may be another network's."""
    if path.suffix.lower() in KERAS_SUFFIXES:
        model = _converted(path, settings, say)
    else:
        model = model_file.load(path)
        differences = _differences(model.metadata.layers, model.input_size, settings, str(path), say)
        if differences and may_differ:
            say(f"{differences[0]}; taking over the weights that fit")
            model = _transferred(model, settings, say)
        elif differences:
            raise ModelError(differences[0])
    return with_normalize(model, settings)


def with_normalize(model: BirdModel, settings: Settings) -> BirdModel:
    """The model with the preprocessing of the config's `normalize`, if it has one.

    Raises:
        ConfigError: a list of another length than the network's channels.
        ModelError: an int8 model with another preprocessing.
    """
    normalize = _normalize(settings)
    if normalize is None:
        return model
    try:
        return with_preprocessing(model, of_normalize(normalize, model.input_size[2]))
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


def compare_layers(metadata: Metadata, settings: Settings, where: str, say: Say) -> None:
    """Compare a model's layers (names, units) with the config's `layers`; an absent file is one line.

    Raises:
        ModelError: a layer that only one of them has, or with another width.
    """
    for difference in _differences(metadata.layers, None, settings, where, say):
        raise ModelError(difference)


def _differences(
    known: Sequence[Layer],
    input_size: tuple[int, int, int] | None,
    settings: Settings,
    where: str,
    say: Say,
) -> list[str]:
    """In what a model is another network than the config's `layers`, if there are any."""
    layers = settings.layers
    if layers is None:
        return []
    if isinstance(layers, str) and not Path(layers).is_file():
        say(f"{layers} is not there; not needed: {where} holds the whole network")
        return []
    config, source = _architecture(layers)
    described = {name: (kind, units) for name, kind, units in keras_source.layers_in(config, source)}
    ours = {layer.name: layer.units for layer in known}
    found = [
        f"{source} has a layer {name!r} that {where} has not{nearest(name, ours)}"
        for name, (kind, _) in described.items()
        if name not in ours and any(part in kind for part in WEIGHTED)
    ]
    found += [
        f"{where} has a layer {name!r} that {source} has not{nearest(name, described)}"
        for name in ours
        if name not in described
    ]
    found += [
        f"layer {name!r} has {described[name][1]} units in {source} and {units} in {where}"
        for name, units in ours.items()
        if name in described and described[name][1] != units
    ]
    size = keras_source.input_size_in(config, source)
    if input_size is not None and size not in (None, input_size):
        found.append(f"{source} takes photos of {_by(size)}, {where} of {_by(input_size)}")
    return found


def described_size(settings: Settings) -> tuple[int, ...] | None:
    """`(height, width, channels)` of the photos that `layers` take, where they are there and say it. Raises
    ModelError."""
    layers = settings.layers
    if layers is None or (isinstance(layers, str) and not Path(layers).is_file()):
        return None
    return keras_source.input_size_in(*_architecture(layers))


def _by(size: Iterable[int]) -> str:
    return " x ".join(map(str, size))


def _architecture(layers: str | Architecture) -> tuple[Architecture, str]:
    """What the config's `layers` describe, and their name in messages."""
    if isinstance(layers, str):
        return keras_source.read_layers(Path(layers)), layers
    return layers, "neural_network.layers"


# --- Networks that Keras builds -------------------------------------------------------------------------


def _fresh(settings: Settings, say: Say, before: Preprocessing | None = None) -> BirdModel:
    """The network of `layers` with fresh weights, behind the preprocessing `before` where the channels are
    its; else behind its own where that is recognised, else with pixels in [0, 1]."""
    assert settings.layers is not None
    config, where = _architecture(settings.layers)
    keras_source.layers_in(config, where)  # refuse a damaged array before TensorFlow takes its seconds
    seed = settings.birdsonnx.seed
    replaced = _normalize(settings) is not None
    channels = None if before is None else len(before.scale)

    def build() -> tuple[KerasNetwork, str]:
        network = keras_source.from_layers(config, where, None, seed)
        if replaced or network.model.inputs[0].shape[-1] == channels:
            return network, "none"
        return network, recognition.preprocessing_of(network.model) or "unit"

    if before is None:
        say(f"{where}: a new network with fresh weights (seed {seed})")
    model = _built(build, [config, seed, replaced, channels], where, settings, say)
    if before is not None and channels == model.input_size[2]:
        return with_preprocessing(model, before)
    if before is None and any(layer.kind == "BatchNormalization" for layer in model.metadata.layers):
        say(f"{where}: its BatchNorm keeps the statistics that it starts with (mean 0, variance 1)")
    if model.metadata.preprocessing.name == "unit":
        say(f"{where}: it sees pixels scaled to [0, 1]; a normalize transform would change that")
    return model


def _transferred(checkpoint: BirdModel, settings: Settings, say: Say) -> BirdModel:
    """The network of `layers` with all weights of a checkpoint that fit it."""
    if checkpoint.metadata.quantization is not None:
        raise ModelError(f"{checkpoint.where}: an int8 model cannot be trained; load the float32 one")
    network = _fresh(settings, say, checkpoint.metadata.preprocessing)
    model, fit = transfer.transferred(network, checkpoint)
    trainable = trainable_layers(model.metadata, settings.birdsonnx.trainable)
    frozen = {layer.name for layer in model.metadata.layers} - set(trainable)
    fit.require(frozen, checkpoint.where)
    say(f"{checkpoint.where}: weights of {len(fit.taken)} layers taken over")
    for note in fit.notes(checkpoint.where):
        say(note)
    source = {"file": Path(checkpoint.where).name, "sha256": artifacts.sha256(Path(checkpoint.where))}
    return BirdModel(model.proto, model.metadata.having(source=source), model.where)


def _converted(path: Path, settings: Settings, say: Say) -> BirdModel:
    """A Keras file, or the network of `layers` with its weights."""
    keras_source.read_config(path)  # refuse a damaged file before TensorFlow takes its seconds
    config, where = (None, "") if settings.layers is None else _architecture(settings.layers)
    seed = settings.birdsonnx.seed
    # A normalize transform replaces the network's own preprocessing, which then need not be recognised.
    preprocess = "auto" if _normalize(settings) is None else "none"

    def build() -> tuple[KerasNetwork, str]:
        if config is None:
            return keras_source.full_model(path), preprocess
        return keras_source.from_layers(config, where, path, seed), preprocess

    return _built(build, [artifacts.sha256(path), config, seed, preprocess], str(path), settings, say)


def _cache_key(facts: Sequence[Any]) -> str:
    """Names a converted network in the cache: another version of what read or converted it is another
    conversion. The versions come from the installed packages' records: importing TensorFlow takes seconds."""
    versions: dict[str, str | None] = {"birdsonnx": __version__}
    for package in CONVERTERS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return hashlib.sha256(json.dumps([*facts, versions], sort_keys=True).encode()).hexdigest()[:32]


def _built(
    build: Callable[[], tuple[KerasNetwork, str]],
    facts: Sequence[Any],
    name: str,
    settings: Settings,
    say: Say,
) -> BirdModel:
    """A network of Keras as ONNX, from the cache where the same `facts` made it before.

    Args:
        build: gives the network and its preprocessing.
        facts: all that its result depends on.
        name: of the network, in messages.
    """
    cache = settings.birdsonnx.cache_folder
    kept = None if cache is None else cache / f"converted-{_cache_key(facts)}.onnx"
    if kept is not None and kept.is_file():
        try:
            model = model_file.load(kept)
        except ModelError:
            say(f"{kept} is damaged, and made again")
        else:
            say(f"{name}: converted before, loading {kept}")
            return BirdModel(model.proto, model.metadata, name)

    from birdsonnx.keras_io import conversion  # imports TensorFlow's helpers

    say(f"converting {name} to ONNX (about half a minute for a ResNet50)")
    network, preprocess = build()
    converted = conversion.convert(network, name, preprocess)
    for note in converted.notes:
        say(note)
    say(f"same answers as Keras: {converted.parity}")
    if kept is not None:
        converted.model.save(kept)
    # Read back from its own bytes, so that a first run and a later one start from the very same model.
    return model_file.parse(converted.model.serialized(), name)
