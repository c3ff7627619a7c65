"""Which preprocessing a Keras network was trained behind: told by its layers, never by its or their names.

Two questions. What do the layers in front of the first weights do to pixels 0-255? They are asked, with three
pixels: a network that scales or centres its input by itself wants raw pixels. Only where they leave pixels as
they are, is the network that follows one of keras.applications? SIGNATURES lists how those begin, far enough
that a network of somebody's own does not fit by chance; alpha, input size, head and a cut-off tail do not
matter.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

import numpy as np

from birdsonnx.keras_io.keras_network import flat_layers
from birdsonnx.model.graph import Array

PROBES = ((0, 0, 0), (255, 255, 255), (10, 120, 200))
"""Pixels, RGB; a network of one channel gets the first."""
NORMALISED = 16
"""Inputs whose range is at most this are not pixels: `tf` spans 2, `torch` 4.5, EfficientNet 9 at most."""
CENTRED = -64
"""Pixels of 0 that come out below this had a mean subtracted: `caffe` gives -104 and less."""


def preprocessing_of(model: Any) -> str | None:
    """The mode for the pixels in front of a Keras model: `caffe`, `torch`, `tf`, `none` where the network
    preprocesses by itself, or None where nothing of that is certain."""
    channels = model.inputs[0].shape[-1]
    pixels = np.array(PROBES, np.float32)[:, :channels]
    seen = _behind_the_front(model, pixels)
    if seen is None:
        return None
    if seen.shape != pixels.shape or not np.allclose(seen, pixels, rtol=0, atol=1e-3):
        own = np.ptp(seen, axis=0).max() <= NORMALISED or seen[0].max() <= CENTRED
        return "none" if own and np.ptp(seen) > 0 else None
    longest = max(len(tokens) for _, tokens in SIGNATURES.values())
    begins = list(islice(_tokens(model), longest))
    for mode, tokens in SIGNATURES.values():
        if len(begins) >= len(tokens) and all(map(fnmatchcase, begins, tokens)):
            return mode
    return None


# --- The layers in front of the first weights -----------------------------------------------------------


def _behind_the_front(model: Any, pixels: Array) -> Array | None:
    """What the first layer with weights gets for `pixels` `[count, channels]`, in the middle of pictures of
    one colour; None where that is no picture."""
    from birdsonnx.keras_io.keras_source import import_keras

    keras = import_keras()
    # The operations of a functional graph, such as the `x / 127.5` of a `preprocess_input`, are no layers.
    steps = getattr(model, "operations", model.layers)
    layers = [step for step in steps if type(step).__name__ != "InputLayer"]
    first = next((at for at, layer in enumerate(layers) if _has_weights(layer)), len(layers))
    if first:
        try:
            front = keras.Model(model.inputs[0], layers[first - 1].output)
        except (ValueError, AttributeError):  # a layer that is called more than once
            return None
        shape = [len(pixels), *(side or 32 for side in model.inputs[0].shape[1:-1]), pixels.shape[1]]
        pictures = np.broadcast_to(pixels[:, None, None, :], shape)
        pictures = np.asarray(front(pictures.astype(np.float32), training=False))
        if pictures.ndim == 2:  # a Flatten in front of a Dense
            pictures = pictures.reshape(len(pixels), 1, -1, pixels.shape[1])
        if pictures.ndim != 4:
            return None
        pixels = pictures[:, pictures.shape[1] // 2, pictures.shape[2] // 2]
    inner = layers[first] if first < len(layers) else None
    return _behind_the_front(inner, pixels) if hasattr(inner, "layers") else pixels


def _has_weights(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ())) and type(layer).__name__ != "Normalization"


# --- How the networks of keras.applications begin -------------------------------------------------------


def _tokens(model: Any) -> Iterator[str]:
    """The layers that make a network what it is, in words: `conv64:7/2sb` is a convolution of 64 filters,
    7 x 7, stride 2, with padding `same` and a bias; `bn:0.001@0.99` a BatchNorm of this epsilon and momentum.
    """
    for layer in flat_layers(model):
        kind, config = type(layer).__name__, layer.get_config()
        if kind in CONVOLUTIONS:
            kernel = "x".join(str(side) for side in dict.fromkeys(config["kernel_size"]))
            same = "s" if config["padding"] == "same" and kernel != "1" else ""
            bias = "b" if config["use_bias"] else ""
            filters = config.get("filters", "")
            yield f"{CONVOLUTIONS[kind]}{filters}:{kernel}/{config['strides'][0]}{same}{bias}"
        elif kind == "BatchNormalization":
            scale = "" if config["scale"] else "-scale"
            yield f"bn:{config['epsilon']:g}@{config['momentum']:g}{scale}"
        elif kind in POOLINGS:
            yield f"{POOLINGS[kind]}:{config['pool_size'][0]}/{config['strides'][0]}"
        elif kind == "ReLU":
            yield "relu6" if config["max_value"] == 6 else "relu"
        activation = config.get("activation")
        if isinstance(activation, str) and activation != "linear":
            yield activation


CONVOLUTIONS = {"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "SeparableConv2D": "separable"}
POOLINGS = {"MaxPooling2D": "max", "AveragePooling2D": "average"}

_BN_RELU = "bn:1.001e-05@0.99 relu "
_RESNET_V1 = f"conv64:1/1b {_BN_RELU} conv64:3/1sb {_BN_RELU} conv256:1/1b "
_RESNET_V2 = f"{_BN_RELU} conv64:1/1 {_BN_RELU} conv64:3/1 {_BN_RELU} "
_INCEPTION = "bn:0.001@0.99-scale relu "
_XCEPTION = "bn:0.001@0.99 "
_RELU6 = "bn:0.001@0.99 relu6 "
_V2_RELU6 = "bn:0.001@0.999 relu6 "
_V2_BLOCK = f"conv*:1/1 {_V2_RELU6} depthwise:3/{{}} {_V2_RELU6} conv*:1/1 bn:0.001@0.999 "
_NASNET = "bn:0.001@0.9997 "


def _xception(filters: int) -> str:
    separable = f"separable{filters}:3/1s {_XCEPTION}"
    return f"relu {separable} relu {separable} conv{filters}:1/2 max:3/2 {_XCEPTION}"


def _vgg(*blocks: tuple[int, int]) -> str:
    return " ".join(count * f"conv{filters}:3/1sb relu " + "max:2/2" for filters, count in blocks)


SIGNATURES: dict[str, tuple[str, list[str]]] = {
    family: (mode, text.split())
    for family, mode, text in (
        (
            "ResNet",
            "caffe",
            f"conv64:7/2b {_BN_RELU} max:3/2"
            f" {_RESNET_V1} conv256:1/1b bn:1.001e-05@0.99 {_BN_RELU} {_RESNET_V1} {_BN_RELU}"
            f" {_RESNET_V1} {_BN_RELU} conv128:1/2b {_BN_RELU} conv128:3/1sb",
        ),
        ("VGG16", "caffe", _vgg((64, 2), (128, 2), (256, 3), (512, 3))),
        ("VGG19", "caffe", _vgg((64, 2), (128, 2), (256, 4), (512, 4))),
        (
            "DenseNet",
            "torch",
            f"conv64:7/2 {_BN_RELU} max:3/2 "
            + 6 * f"{_BN_RELU} conv128:1/1 {_BN_RELU} conv32:3/1s "
            + f"{_BN_RELU} conv128:1/1 average:2/2",
        ),
        (
            "ResNetV2",
            "tf",
            f"conv64:7/2b max:3/2 {_RESNET_V2} conv256:1/1b conv256:1/1b {_RESNET_V2} conv256:1/1b"
            f" {_BN_RELU} conv64:1/1 {_BN_RELU} conv64:3/2",
        ),
        (
            "InceptionV3 and InceptionResNetV2",
            "tf",
            f"conv32:3/2 {_INCEPTION} conv32:3/1 {_INCEPTION} conv64:3/1s {_INCEPTION} max:3/2"
            f" conv80:1/1 {_INCEPTION} conv192:3/1 {_INCEPTION} max:3/2 conv64:1/1 {_INCEPTION} conv48:1/1",
        ),
        (
            "Xception",
            "tf",
            f"conv32:3/2 {_XCEPTION} relu conv64:3/1 {_XCEPTION} "
            + (_xception(128) + _xception(256) + _xception(728))
            + 3 * f"relu separable728:3/1s {_XCEPTION} ",
        ),
        (
            "MobileNet",
            "tf",
            f"conv*:3/2s {_RELU6}"
            + "".join(
                f"depthwise:3/{stride} {_RELU6} conv*:1/1 {_RELU6} "
                for stride in ("1s", "2", "1s", "2", "1s", "2", "1s", "1s")
            ),
        ),
        (
            "MobileNetV2",
            "tf",
            f"conv*:3/2s {_V2_RELU6} depthwise:3/1s {_V2_RELU6} conv*:1/1 bn:0.001@0.999 "
            + "".join(_V2_BLOCK.format(stride) for stride in ("2", "1s", "2", "1s", "1s", "2")),
        ),
        (
            "NASNet",
            "tf",
            f"conv*:3/2 {_NASNET} relu conv*:1/1 {_NASNET} relu relu separable*:5/2 separable*:7/2"
            f" {_NASNET} {_NASNET} relu relu separable*:5/1s separable*:7/1s",
        ),
    )
}
"""Family: mode and the tokens that it begins with, `*` for any number of filters. What is missing here begins
with a Rescaling or Normalization of its own (MobileNetV3, EfficientNet, EfficientNetV2, ConvNeXt)."""
