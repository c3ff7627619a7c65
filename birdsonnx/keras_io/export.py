"""`birdsonnx export`: which Keras network, which weights, which classes; then convert and save. Or back."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birdsonnx import artifacts
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.keras_io import architectures, label_file, parity
from birdsonnx.keras_io.conversion import Conversion, convert
from birdsonnx.keras_io.packed_network import packed, unpacked
from birdsonnx.keras_io.parity import NotChecked, Parity
from birdsonnx.keras_io.reading import KerasFile, containers, read
from birdsonnx.keras_io.reading.fitting import read_into
from birdsonnx.keras_io.tf2onnx_road.keras_network import layers_json
from birdsonnx.model import model_file
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.passes import temperature
from birdsonnx.runtime.audience import NOBODY, Audience

DEFAULT_ARCH = "resnet50"
DEFAULT_CLASSES = 400
"""As many species as the tutorial's data have."""
KERAS_SUFFIXES = (".keras", ".h5")
"""Of what `to_keras` writes."""


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
    converter: str = "own"
    """`own`: read by ourselves; `tf2onnx`: by Keras and tf2onnx."""
    tag: str | None = None
    """Name of the folders in `labels` that hold the class folders; None: it does."""
    names: tuple[str, ...] | None = None
    """Of the classes, instead of `labels`."""
    compare: bool = True
    """Whether to compare a network that was read with Keras, where that is installed."""

    @property
    def file(self) -> Path:
        """The `.onnx` to write: by default it is called after `--arch`."""
        name = DEFAULT_ARCH if self.arch is None else self.arch.lower()
        return self.output or Path("models") / f"{name}_birds.onnx"


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with Keras."""

    conversion: Conversion
    parity: Parity | NotChecked
    content: Any
    """The network's JSON, decoded."""


def export(
    request: Request,
    audience: Audience = NOBODY,
    converted: Callable[[Conversion], None] = lambda _: None,
) -> Exported:
    """Read the network, convert it, compare it with Keras where that is installed, write the `.onnx`.

    Args:
        audience: sees the phases.
        converted: takes the conversion before it is compared, which takes longest.

    Raises:
        BirdsonnxError: options that contradict each other, files that cannot be used, no parity.
    """
    names = _class_names(request)
    if request.classes is not None and names is not None and request.classes != len(names):
        there = request.labels or "the list of names"
        raise ConfigError(f"--classes {request.classes}, but {there} has {len(names)} classes")
    wanted = request.classes or (len(names) if names else None)
    where = str(request.source or request.layers or request.arch or DEFAULT_ARCH)
    work = _by_tf2onnx if request.converter == "tf2onnx" else _by_reading
    conversion, content, compare = work(request, where, wanted, audience)
    model = conversion.model
    if wanted is not None and model.num_classes != wanted:
        there = "the list of names" if request.labels is None else f"--labels {request.labels}"
        asked = f"{there} has {wanted}" if names else f"--classes {wanted}"
        raise ConfigError(f"{asked}, but {where} has {model.num_classes} classes; its head stays as it is")
    metadata = model.metadata.having(classes=None if names is None else tuple(names), network=packed(content))
    model = BirdModel(model.proto, metadata, model.where)
    conversion = replace(conversion, model=model)
    converted(conversion)
    with audience.progress("comparing with Keras"):
        found = compare()
    model.save(request.file)
    if request.save_layers is not None:
        artifacts.write_json(request.save_layers, content)
    return Exported(conversion, found, content)


Compare = Callable[[], Parity | NotChecked]


def _class_names(request: Request) -> Sequence[str] | None:
    """The names that `--labels` gives. Raises ConfigError or DataError."""
    if request.names is not None and request.labels is not None:
        raise ConfigError("the names of the classes are given twice; give them or labels")
    if request.labels is None:
        if request.tag is not None:
            raise ConfigError("--tag is for the folder of --labels, and there is none")
        return None if request.names is None else _sound(request.names)
    if request.labels.is_file():
        if request.tag is not None:
            raise ConfigError(f"--tag is for a folder, and --labels {request.labels} is a file")
        return label_file.read(request.labels)
    names = read_class_folders(request.labels, request.tag).classes
    if len(names) < 2:
        raise ConfigError(f"--labels {request.labels} has one class folder; a classifier needs two or more")
    return names


def _sound(names: Sequence[str]) -> Sequence[str]:
    """Names of classes that a program gives. Raises ConfigError."""
    if len(names) < 2 or not all(isinstance(name, str) and name for name in names):
        raise ConfigError("names of classes are two texts or more, none of them empty")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"the class name {twice!r} is there twice")
    return names


def _by_reading(
    request: Request, where: str, classes: int | None, audience: Audience
) -> tuple[Conversion, Any, Compare]:
    with audience.progress(f"reading {where}"):
        file = _network(request, classes)
    with audience.progress(f"converting {where}"):
        converted = convert(file, where, request.preprocess, request.opset)
    if classes is None and request.source is None and request.layers is None:
        converted.notes.append(
            f"{DEFAULT_CLASSES} classes without names: neither --labels nor --classes is given; folders of "
            "another number of classes cannot train it (--labels data/train takes both from the folders)"
        )

    def load() -> Any:
        from birdsonnx.keras_io import oracle  # imports TensorFlow's helpers

        whole = request.source is not None and request.layers is None
        return oracle.model_of_file(Path(str(request.source))) if whole else oracle.model_like(file)

    def compare() -> Parity | NotChecked:
        if not request.compare:
            return NotChecked("not asked for")
        return parity.compare(converted.model, file, load)

    return converted, file.content, compare


def _by_tf2onnx(
    request: Request, where: str, _: int | None, audience: Audience
) -> tuple[Conversion, Any, Compare]:
    """The old road, for layers that `reading` does not know. Needs the `export` extra."""
    from birdsonnx.keras_io.tf2onnx_road import conversion as old_road
    from birdsonnx.keras_io.tf2onnx_road import keras_source

    if request.source is None and request.layers is None:
        raise ConfigError("--converter tf2onnx is for a SOURCE or --layers")
    _refuse_arch_options(request)
    with audience.progress("starting Keras"):
        keras_source.import_keras()
    if request.layers is not None:
        config = keras_source.read_layers(request.layers)
        weights = _weights_of_layers(request)
        network = keras_source.from_layers(config, str(request.layers), weights, request.seed)
    else:
        network = keras_source.full_model(Path(str(request.source)))
    with audience.progress("converting with tf2onnx"):
        converted = old_road.convert(network, where, request.preprocess, request.opset)
    model = converted.model

    def compare() -> Parity:
        return parity.check(model.serialized(), network.model, model.metadata.preprocessing, where)

    return converted, layers_json(network), compare


@dataclass(frozen=True)
class BackToKeras:
    """A `.onnx` and the Keras network that it came from."""

    source: Path
    layers: Path | None
    """The network's JSON; None: the one that the `.onnx` holds."""
    output: Path


@dataclass(frozen=True)
class Returned:
    """What was written, and what its input must be."""

    preprocessing: Preprocessing
    parity: Parity | NotChecked
    notes: tuple[str, ...] = ()
    """About the calibration."""


def to_keras(request: BackToKeras, audience: Audience = NOBODY) -> Returned:
    """Write the weights of a birdsonnx `.onnx` back into its Keras network, as `.keras` or `.h5`.

    The file holds the network alone, without the preprocessing that the `.onnx` has inside.

    Raises:
        BirdsonnxError: an int8 model, another network, a file that cannot be used, no parity.
    """
    source, output = request.source, request.output
    if output.suffix.lower() not in KERAS_SUFFIXES:
        raise ConfigError(f"-o {output}: a Keras file ends in {' or '.join(KERAS_SUFFIXES)}")
    model = model_file.load(source)
    if model.metadata.quantization is not None:
        raise ModelError(
            f"{source}: an int8 model has no Keras form; give the float32 model it was made from"
        )
    from birdsonnx.keras_io import oracle, way_back  # imports TensorFlow's helpers

    notes = []
    undivided = temperature.without_division(model.proto)
    if undivided is not None:
        model = BirdModel(undivided, model.metadata, model.where)
        notes.append("its temperature is a node of the .onnx alone: the Keras network is not calibrated")
    elif model.metadata.calibration is not None:
        notes.append("its weights hold the temperature: the Keras network is calibrated too")
    if model.metadata.thresholds is not None:
        notes.append("its thresholds are not in the Keras file")
    with audience.progress(f"reading {source}"):
        file = way_back.returned(model, *_network_of(model, request.layers))
    with audience.progress("comparing with Keras"):
        found = parity.compare(model, file, lambda: oracle.model_like(file))
    with audience.progress(f"writing {output}"):
        way_back.save(file, output)
    return Returned(model.metadata.preprocessing, found, tuple(notes))


def _network_of(model: BirdModel, layers: Path | None) -> tuple[Any, str]:
    """The Keras JSON to go back to, and its name in messages. Raises ModelError or ConfigError."""
    if layers is not None:
        return containers.read_json(layers), str(layers)
    if model.metadata.network is None:
        raise ConfigError(
            f"{model.where} holds no Keras network; give the one that it was made of: birdsonnx export --to "
            f"keras {model.where} --layers layers.json"
        )
    where = f"the Keras network in {model.where}"
    return unpacked(model.metadata.network, where), where


def _network(request: Request, classes: int | None) -> KerasFile:
    if request.layers is None and request.source is None:
        if request.channels not in (None, 1, 3):
            raise ConfigError(f"--channels {request.channels}: choose 1 (grayscale) or 3")
        size = None if request.size is None else _size(request.size)
        arch, channels = request.arch or DEFAULT_ARCH, request.channels or 3
        count = classes or DEFAULT_CLASSES
        return architectures.read(arch, count, request.weights, request.seed, size, channels)
    _refuse_arch_options(request)
    if request.layers is not None:
        content = containers.read_json(request.layers)
        return read_into(content, _weights_of_layers(request), request.seed, str(request.layers))
    if request.weights != "imagenet":
        raise ConfigError("--weights is for a network without SOURCE; SOURCE has its own weights")
    return read(Path(str(request.source)))


def _refuse_arch_options(request: Request) -> None:
    given = {"--arch": request.arch, "--size": request.size, "--channels": request.channels}
    for option, value in given.items():
        if value is not None:
            file = "--layers" if request.layers is not None else "SOURCE"
            kind = f"without {file}" if option == "--arch" else "of --arch"
            raise ConfigError(f"{option} {value} is for a network {kind}; {file} says all about its own")


def _weights_of_layers(request: Request) -> Path | None:
    """The file with the weights of `--layers`; None: they start fresh."""
    if request.source is not None:
        return request.source
    if request.weights == "imagenet":
        raise ConfigError("--layers takes its weights from SOURCE, --weights FILE or --weights none")
    return None if request.weights == "none" else Path(request.weights)


def _size(text: str) -> tuple[int, int]:
    """`(height, width)` of `160` or `192x160`, width first."""
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.lower())
    if found is None:
        raise ConfigError(f"--size {text}: give a side such as 160, or width x height such as 192x160")
    width, height = found[1], found[2] or found[1]
    return int(height), int(width)
