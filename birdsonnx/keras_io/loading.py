"""The network that a config asks for: what `checkpoints.load` names, what `layers` describe, or both."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdsonnx import artifacts
from birdsonnx.config.transforms import Normalize
from birdsonnx.config.wording import nearest
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.images.folders import quiet
from birdsonnx.keras_io import conversion
from birdsonnx.keras_io.reading import building, containers, read
from birdsonnx.keras_io.reading.fitting import read_into
from birdsonnx.keras_io.reading.parsing import parse
from birdsonnx.keras_io.reading.paths import paths_of
from birdsonnx.keras_io.reading.records import leaves
from birdsonnx.model import model_file, transfer
from birdsonnx.model.after_change import without_fitted
from birdsonnx.model.metadata import Layer, Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing, of_normalize
from birdsonnx.model.trainable import trainable_layers
from birdsonnx.passes.uint8_input import with_preprocessing

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings

Say = Callable[[str], None]

KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
WEIGHTED = ("Conv", "Dense", "BatchNormalization")
"""Class names of layers that hold weights contain one of these."""


def to_train(settings: "Settings", say: Say) -> BirdModel:
    """The network to train, with the preprocessing that the config asks for: what `checkpoints.load` names;
    with `layers` beside it that describe another network, that one, with the weights that fit; with `layers`
    alone, that network from fresh weights.

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
    return without_fitted(model, "since its training changes its weights", say)


def to_predict(settings: "Settings", say: Say) -> tuple[Path | bytes, str]:
    """The same for prediction, and its name in messages: the file as it is where the config changes nothing
    of it (the caller compares `layers`), else the model's content."""
    assert settings.checkpoints.load is not None
    path = checkpoint_file(settings.checkpoints.load, say)
    if path.suffix.lower() not in KERAS_SUFFIXES and _normalize(settings) is None:
        return path, str(path)
    return _load(path, settings, say).serialized(), str(path)


def _load(path: Path, settings: "Settings", say: Say, may_differ: bool = False) -> BirdModel:
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
    return with_normalize(model, settings, say)


def with_normalize(model: BirdModel, settings: "Settings", say: Say = quiet) -> BirdModel:
    """The model with the preprocessing of the config's `normalize`, if it has one. `say` takes a line where
    something was fitted to its answers with another.

    Raises:
        ConfigError: a list of another length than the network's channels.
        ModelError: an int8 model with another preprocessing.
    """
    normalize = _normalize(settings)
    if normalize is None:
        return model
    try:
        changed = with_preprocessing(model, of_normalize(normalize, model.input_size[2]))
    except ValueError as error:
        raise ConfigError(f"neural_network.data.transforms: {error}") from None
    return model if changed is model else without_fitted(changed, "since 'normalize' changes its input", say)


def _normalize(settings: "Settings") -> Normalize | None:
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


def compare_layers(metadata: Metadata, settings: "Settings", where: str, say: Say) -> None:
    """Compare a model's layers (names, units) with the config's `layers`; an absent file is one line.

    Raises:
        ModelError: a layer that only one of them has, or with another width.
    """
    for difference in _differences(metadata.layers, None, settings, where, say):
        raise ModelError(difference)


def _differences(
    known: Sequence[Layer],
    input_size: tuple[int, int, int] | None,
    settings: "Settings",
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
    described = {name: (kind, units) for name, kind, units in _layers_in(config, source)}
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
    size = _size_in(config, source)
    if input_size is not None and size not in (None, input_size):
        found.append(f"{source} takes photos of {_by(size)}, {where} of {_by(input_size)}")
    return found


def described_size(settings: "Settings") -> tuple[int, ...] | None:
    """`(height, width, channels)` of the photos that `layers` take, where they are there and say it. Raises
    ModelError."""
    layers = settings.layers
    if layers is None or (isinstance(layers, str) and not Path(layers).is_file()):
        return None
    return _size_in(*_architecture(layers))


def _layers_in(content: Any, where: str) -> list[tuple[str, str, int | None]]:
    """Path, Keras class, and units or filters of every layer, nested models flattened. Raises ModelError."""
    network = parse(content, where)
    paths = paths_of(network, where)
    return [(paths[full], layer.kind, layer.width) for full, layer in leaves(network)]


def _size_in(content: Any, where: str) -> tuple[int, ...] | None:
    """`(height, width, channels)` of the photos that a network takes, where it says so."""
    network = parse(content, where)
    try:
        return building.input_size(network, where)
    except ModelError:
        return None


def _by(size: Iterable[int]) -> str:
    return " x ".join(map(str, size))


def _architecture(layers: str | Any) -> tuple[Any, str]:
    """What the config's `layers` describe, and their name in messages."""
    if isinstance(layers, str):
        return containers.read_json(Path(layers)), layers
    return layers, "neural_network.layers"


# --- Networks of Keras ----------------------------------------------------------------------------------


def _fresh(settings: "Settings", say: Say, before: Preprocessing | None = None) -> BirdModel:
    """The network of `layers` with fresh weights, with the preprocessing `before` where the channels are its;
    else with its own where that is recognised, else with pixels in [0, 1]."""
    assert settings.layers is not None
    config, where = _architecture(settings.layers)
    seed = settings.birdsonnx.seed
    if before is None:
        say(f"{where}: a new network with fresh weights (seed {seed})")
    file = read_into(config, None, seed, where)
    replaced = _normalize(settings) is not None
    theirs = before is not None and file.input_size[2] == len(before.scale)
    mode = "none" if replaced or theirs else "auto"
    converted = conversion.convert(file, where, mode, unrecognised="unit")
    model = converted.model
    for note in file.notes:
        say(note)
    if before is not None and theirs:
        return with_preprocessing(model, before)
    if before is None and any(layer.kind == "BatchNormalization" for layer in model.metadata.layers):
        say(f"{where}: its BatchNorm keeps the statistics that it starts with (mean 0, variance 1)")
    if model.metadata.preprocessing.name == "unit":
        say(f"{where}: it sees pixels scaled to [0, 1]; a normalize transform would change that")
    return model


def _transferred(checkpoint: BirdModel, settings: "Settings", say: Say) -> BirdModel:
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


def _converted(path: Path, settings: "Settings", say: Say) -> BirdModel:
    """A Keras file, or the network of `layers` with its weights."""
    # A normalize transform replaces the network's own preprocessing, which then need not be recognised.
    mode = "auto" if _normalize(settings) is None else "none"
    if settings.layers is None:
        file = read(path)
    else:
        config, where = _architecture(settings.layers)
        file = read_into(config, path, settings.birdsonnx.seed, where)
    converted = conversion.convert(file, str(path), mode)
    for note in converted.notes:
        say(note)
    # Read back from its own bytes, as it will be from a checkpoint: the very same model.
    return model_file.parse(converted.model.serialized(), str(path))
