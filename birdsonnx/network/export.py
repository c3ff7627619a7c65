"""`birdsonnx export`: which Keras network, which weights, which classes; then convert and save."""

from dataclasses import dataclass
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.errors import ConfigError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.network import conversion, keras_source
from birdsonnx.network.conversion import Conversion
from birdsonnx.network.keras_source import KerasNetwork

ARCHITECTURES = ("resnet50",)


@dataclass(frozen=True)
class Request:
    """What to export; the fields are the command's options."""

    source: Path | None
    output: Path
    arch: str = "resnet50"
    weights: str = "imagenet"
    layers: Path | None = None
    classes: int | None = None
    labels: Path | None = None
    preprocess: str = "auto"
    opset: int = 17
    seed: int = 0
    save_layers: Path | None = None
    tag: str | None = None
    """Name of the folders in `labels` that hold the class folders; None: it does."""


def export(request: Request) -> Conversion:
    """Build or read the network, convert it, check it against Keras, write the `.onnx`.

    Raises:
        BirdsonnxError: options that contradict each other, files that cannot be used, no parity.
    """
    if request.tag is not None and request.labels is None:
        raise ConfigError("--tag is for the folder of --labels, and there is none")
    names = None if request.labels is None else read_class_folders(request.labels, request.tag).classes
    if request.classes is not None and names is not None and request.classes != len(names):
        raise ConfigError(f"--classes {request.classes}, but {request.labels} has {len(names)} class folders")
    network = _network(request, request.classes or (len(names) if names else None))
    where = str(request.source or request.layers or request.arch)
    converted = conversion.convert(network, where, request.preprocess, request.opset, names)
    if request.classes is not None and request.classes != converted.model.num_classes:
        raise ConfigError(
            f"--classes {request.classes}, but {where} has {converted.model.num_classes} classes; the head "
            "comes from the file, leave --classes out"
        )
    converted.model.save(request.output)
    if request.save_layers is not None:
        artifacts.write_json(request.save_layers, keras_source.layers_json(network))
    return converted


def _network(request: Request, classes: int | None) -> KerasNetwork:
    if request.layers is not None:
        if request.source is not None:
            weights: Path | None = request.source
        elif request.weights == "imagenet":
            raise ConfigError("--layers takes its weights from SOURCE, --weights FILE or --weights none")
        else:
            weights = None if request.weights == "none" else Path(request.weights)
        config = keras_source.read_layers(request.layers)
        return keras_source.from_layers(config, str(request.layers), weights, request.seed)
    if request.source is not None:
        if request.weights != "imagenet":
            raise ConfigError("--weights is for a network without SOURCE; SOURCE has its own weights")
        return keras_source.full_model(request.source)
    if request.arch.lower() not in ARCHITECTURES:
        raise ConfigError(f"--arch {request.arch}: choose {', '.join(ARCHITECTURES)}, or give a SOURCE file")
    return keras_source.resnet50(classes or 400, request.weights, request.seed)
