"""`birdsonnx export`: which Keras network, which weights, which classes; then convert and save. Or back."""

import re
from dataclasses import dataclass
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.keras_io import architectures, conversion, keras_source, keras_target, parity
from birdsonnx.keras_io.conversion import Conversion
from birdsonnx.keras_io.keras_network import KerasNetwork, layers_json
from birdsonnx.keras_io.parity import Parity
from birdsonnx.model import model_file
from birdsonnx.model.preprocessing import Preprocessing

DEFAULT_ARCH = "resnet50"


@dataclass(frozen=True)
class Request:
    """What to export; the fields are the command's options, None where they were not given."""

    source: Path | None = None
    output: Path | None = None
    arch: str | None = None
    weights: str = "imagenet"
    layers: Path | None = None
    size: str | None = None
    channels: int | None = None
    classes: int | None = None
    labels: Path | None = None
    preprocess: str = "auto"
    opset: int = 17
    seed: int = 0
    save_layers: Path | None = None
    tag: str | None = None
    """Name of the folders in `labels` that hold the class folders; None: it does."""

    @property
    def file(self) -> Path:
        """The `.onnx` to write: by default it is called after `--arch`."""
        name = DEFAULT_ARCH if self.arch is None else self.arch.lower()
        return self.output or Path("models") / f"{name}_birds.onnx"


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
    wanted = request.classes or (len(names) if names else None)
    network = _network(request, wanted)
    where = str(request.source or request.layers or request.arch or DEFAULT_ARCH)
    has = network.model.outputs[0].shape[-1]
    if wanted is not None and has != wanted:
        asked = f"--labels {request.labels} has {wanted}" if names else f"--classes {wanted}"
        raise ConfigError(f"{asked}, but {where} has {has} classes; its head stays as it is")
    converted = conversion.convert(network, where, request.preprocess, request.opset, names)
    converted.model.save(request.file)
    if request.save_layers is not None:
        artifacts.write_json(request.save_layers, layers_json(network))
    return converted


@dataclass(frozen=True)
class BackToKeras:
    """A `.onnx` and the Keras network that it came from."""

    source: Path
    layers: Path
    output: Path


@dataclass(frozen=True)
class Returned:
    """What was written, and what its input must be."""

    preprocessing: Preprocessing
    parity: Parity


def to_keras(request: BackToKeras) -> Returned:
    """Write the weights of a birdsonnx `.onnx` back into its Keras network, as `.keras` or `.h5`.

    The file holds the network alone, without the preprocessing that the `.onnx` has inside.

    Raises:
        BirdsonnxError: an int8 model, another network, a file that cannot be used, no parity.
    """
    source, output = request.source, request.output
    if output.suffix.lower() not in keras_target.SUFFIXES:
        raise ConfigError(f"-o {output}: a Keras file ends in {' or '.join(keras_target.SUFFIXES)}")
    model = model_file.load(source)
    if model.metadata.quantization is not None:
        raise ModelError(
            f"{source}: an int8 model has no Keras form; give the float32 model it was made from"
        )
    config = keras_source.read_layers(request.layers)
    network = keras_source.from_layers(config, str(request.layers), None, seed=0)
    keras_target.put_weights(network, model)
    preprocessing = model.metadata.preprocessing
    found = parity.check(model.serialized(), network.model, preprocessing, str(source))
    keras_target.save(network, output)
    return Returned(preprocessing, found)


def _network(request: Request, classes: int | None) -> KerasNetwork:
    if request.layers is None and request.source is None:
        if request.channels not in (None, 1, 3):
            raise ConfigError(f"--channels {request.channels}: choose 1 (grayscale) or 3")
        size = None if request.size is None else _size(request.size)
        arch, channels = request.arch or DEFAULT_ARCH, request.channels or 3
        return architectures.build(arch, classes or 400, request.weights, request.seed, size, channels)
    given = {"--arch": request.arch, "--size": request.size, "--channels": request.channels}
    for option, value in given.items():
        if value is not None:
            file = "--layers" if request.layers is not None else "SOURCE"
            kind = f"without {file}" if option == "--arch" else "of --arch"
            raise ConfigError(f"{option} {value} is for a network {kind}; {file} says all about its own")
    if request.layers is not None:
        if request.source is not None:
            weights: Path | None = request.source
        elif request.weights == "imagenet":
            raise ConfigError("--layers takes its weights from SOURCE, --weights FILE or --weights none")
        else:
            weights = None if request.weights == "none" else Path(request.weights)
        config = keras_source.read_layers(request.layers)
        return keras_source.from_layers(config, str(request.layers), weights, request.seed)
    assert request.source is not None
    if request.weights != "imagenet":
        raise ConfigError("--weights is for a network without SOURCE; SOURCE has its own weights")
    return keras_source.full_model(request.source)


def _size(text: str) -> tuple[int, int]:
    """`(height, width)` of `160` or `192x160`, width first."""
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.lower())
    if found is None:
        raise ConfigError(f"--size {text}: give a side such as 160, or width x height such as 192x160")
    width, height = found[1], found[2] or found[1]
    return int(height), int(width)
