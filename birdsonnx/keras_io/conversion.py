"""A Keras network to a birdsonnx `.onnx`: the reader's graph, then our passes. Keras is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from onnx import ModelProto

from birdsonnx import __version__
from birdsonnx.config.wording import nearest
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import recognition
from birdsonnx.keras_io.packed_network import packed
from birdsonnx.keras_io.reading import KerasFile, graph_of
from birdsonnx.keras_io.reading.building import OPSETS
from birdsonnx.model import preprocessing
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.passes.finishing import finish
from birdsonnx.passes.log_probs_output import end_in_log_probs
from birdsonnx.passes.max_pool_padding import PadIntoMaxPool
from birdsonnx.passes.rewriting import Report, applied_of, apply, declined_of
from birdsonnx.passes.strides import move_strides_up
from birdsonnx.passes.uint8_input import take_uint8


@dataclass(frozen=True)
class Conversion:
    """The converted model and what is known about how it came about."""

    model: BirdModel
    rewritten: dict[str, int]
    """What each rewrite changed, by name: how many nodes."""
    notes: list[str]
    """What the user should know."""
    declined: dict[str, dict[str, int]] = field(default_factory=dict)
    """What a rewrite left as it was, by name: how many places, by reason."""


def convert(
    file: KerasFile,
    where: str,
    preprocess: str = "auto",
    opset: int = 17,
    classes: Sequence[str] | None = None,
    unrecognised: str | None = None,
) -> Conversion:
    """Convert a network that was read.

    Args:
        file: the network and its arrays.
        where: names it in messages.
        preprocess: of its pixels: a mode, or `auto` to recognise it by the layers.
        opset: of the ONNX operations.
        classes: names in index order, where they are known.
        unrecognised: the mode where `auto` does not recognise one; None: that is refused.

    Raises:
        ConfigError: an unknown preprocessing or opset, or a class list of another length.
        ModelError: the network is no single-image classifier, or a layer of it cannot be read.
    """
    if opset not in OPSETS:
        raise ConfigError(f"--opset {opset}: choose {OPSETS.start} to {OPSETS.stop - 1}")
    *_, channels = file.input_size
    graph = graph_of(file, opset)
    if [dim.dim_value for dim in graph.model.graph.output[0].type.tensor_type.shape.dim[1:]] == [1]:
        raise ModelError(
            f"{where}: has one output for two classes; give it a score per class (Dense(2) with softmax)"
        )
    weighted = {layer.name for layer in file.layers if layer.kind != "Normalization"}
    steps = [(layer.kind, layer.config) for _, layer, _ in file.leaves if not layer.is_operation]
    notes = list(file.notes)
    if preprocess == "auto":
        found = recognition.preprocessing_of(graph.model, weighted, steps)
        preprocess = settled_mode(found or unrecognised, channels, where, notes)
    before = preprocessing_for(preprocess, channels, where)
    reports = [graph.batch_norms, *finished(graph.model, before, where)]
    layers = file.layers
    metadata = Metadata(
        preprocessing=before,
        layers=layers,
        trainable=tuple(layer.name for layer in layers if layer.trainable),
        parameters=file.parameters,
        dropout=graph.dropout,
        classes=None if classes is None else tuple(classes),
        source=file.source,
        versions={"birdsonnx": __version__, "onnx": version("onnx")},
        network=None if file.content is None else packed(file.content),
    )
    model = BirdModel(graph.model, metadata, where)
    require_classes(model, classes)
    return Conversion(model, applied_of(reports), notes, declined_of(reports))


def settled_mode(found: str | None, channels: int, where: str, notes: list[str]) -> str:
    """The mode to use where it was to be recognised. Raises ModelError where it was not."""
    if found in ("none", "unit") or (found is not None and channels == 3):
        return found
    if channels == 1:  # as rmldnn feeds them: keras.applications' own modes are for 3 channels
        notes.append(
            f"{where}: takes one channel, values in [0, 1] (preprocessing unit); --preprocess says otherwise"
        )
        return "unit"
    raise ModelError(
        f"{where}: the preprocessing of this network is not recognised from its layers; say which one it "
        f"was trained with: birdsonnx export --preprocess {' | '.join(preprocessing.MODES)}"
    )


def preprocessing_for(mode: str, channels: int, where: str) -> Preprocessing:
    """The preprocessing of a mode. Raises ConfigError for an unknown one, or one for other channels."""
    if mode not in preprocessing.MODES:
        choices = ("auto", *preprocessing.MODES)
        raise ConfigError(f"--preprocess {mode}: choose {', '.join(choices)}{nearest(mode, choices)}")
    try:
        return preprocessing.of_mode(mode, channels)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; say another with --preprocess") from None


def finished(model: ModelProto, before: Preprocessing, where: str) -> list[Report]:
    """Tidy a float32 graph and let it go from uint8 pixels to log-probabilities, in place; what was done.

    Raises:
        ModelError: it ends in anything but class scores.
    """
    graph = model.graph
    reports = [apply(PadIntoMaxPool(), graph), move_strides_up(graph)]
    try:
        end_in_log_probs(model)
        take_uint8(graph, before)
        finish(model)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    return reports


def require_classes(model: BirdModel, classes: Sequence[str] | None) -> None:
    """Raises ConfigError where the network has another number of classes than there are names."""
    if classes is not None and len(classes) != model.num_classes:
        raise ConfigError(
            f"{model.where}: the network has {model.num_classes} classes, the labels {len(classes)}"
        )
