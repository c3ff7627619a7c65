"""The classifiers of keras.applications that `birdsonnx export --arch` builds, by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from birdsonnx.config.wording import nearest
from birdsonnx.errors import ConfigError
from birdsonnx.keras_io.architectures import descriptions, imagenet
from birdsonnx.keras_io.reading import KerasFile, read_into
from birdsonnx.keras_io.reading.keras_file import notes_on

DEFAULT_SIZES = {
    "ResNet50": 224,
    "ResNet101": 224,
    "ResNet152": 224,
    "ResNet50V2": 224,
    "ResNet101V2": 224,
    "ResNet152V2": 224,
    "VGG16": 224,
    "VGG19": 224,
    "DenseNet121": 224,
    "DenseNet169": 224,
    "DenseNet201": 224,
    "InceptionV3": 299,
    "InceptionResNetV2": 299,
    "Xception": 299,
    "MobileNet": 224,
    "MobileNetV2": 224,
    "MobileNetV3Small": 224,
    "MobileNetV3Large": 224,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B0": 224,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "NASNetMobile": 224,
    "NASNetLarge": 331,
    "ConvNeXtTiny": 224,
    "ConvNeXtSmall": 224,
    "ConvNeXtBase": 224,
    "ConvNeXtLarge": 224,
    "ConvNeXtXLarge": 224,
}
"""Names of the builders in keras.applications, and the height and width each was trained at. Kept here so
that a list of names needs no TensorFlow."""


def named(name: str) -> str:
    """The spelling of keras.applications for a name in any case.

    Raises:
        ConfigError: no such network; the message says how to list all.
    """
    spellings = {known.lower(): known for known in DEFAULT_SIZES}
    if name.lower() not in spellings:
        raise ConfigError(
            f"--arch {name}: there is no such network in keras.applications; birdsonnx export --arch list "
            f"names all, and a network of your own is a SOURCE file{nearest(name, DEFAULT_SIZES)}"
        )
    return spellings[name.lower()]


def read(
    name: str,
    classes: int,
    weights: str = "imagenet",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    channels: int = 3,
) -> KerasFile:
    """A network of keras.applications, frozen, average-pooled, and a Dense with log_softmax named `dense`.

    `weights` is `imagenet` (Keras' download), `none` (fresh weights by the seed), or a file; `size` is
    `(height, width)`, by default what the network was trained at.

    Raises:
        ConfigError: an unknown name, or a size or channels that Keras does not build it with.
        ModelError: ImageNet weights that cannot be downloaded, or a file that does not fit.
    """
    name, content = described(name, classes, weights, size, channels)
    where, source = f"--arch {name}", {"file": f"keras.applications.{name} ({weights})"}
    if weights != "imagenet":
        return read_into(content, None if weights == "none" else Path(weights), seed, where, source)
    height, width = size or (DEFAULT_SIZES[name],) * 2
    file = imagenet.local_file(descriptions.load(name).imagenet_file(height, width))
    found = read_into(content, file, seed, where)
    return replace(found, source=source, notes=notes_on(found))  # that the head is new goes without saying


def described(
    name: str,
    classes: int,
    weights: str = "imagenet",
    size: tuple[int, int] | None = None,
    channels: int = 3,
) -> tuple[str, dict[str, Any]]:
    """Keras' spelling of a network's name, and the JSON of that network with its head, as `read` has it.

    Raises:
        ConfigError: an unknown name, or a size or channels that Keras does not build it with.
    """
    name = named(name)
    height, width = size or (DEFAULT_SIZES[name],) * 2
    description = descriptions.load(name)
    refusal = None
    if weights == "imagenet" and channels != 3:
        refusal = "the input must have 3 channels for ImageNet's weights"
    elif min(height, width) < description.least:
        refusal = f"height and width must be at least {description.least}x{description.least}"
    if refusal:
        raise ConfigError(
            f"--arch {name}: Keras does not build it for {width}x{height} images of {channels} channel(s) "
            f"and --weights {weights} ({refusal})"
        )
    return name, description.layers_json(height, width, channels, weights == "imagenet", classes)
