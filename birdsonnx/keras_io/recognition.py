"""Which preprocessing a Keras network was trained with: its layers show it, never its or their names.

Two questions. What do the layers before the first weights do to pixels 0-255? They are run on three pixels: a
network that scales or centres its input by itself wants raw pixels. Only where they leave pixels as they are,
is the network that follows one of keras.applications? SIGNATURES lists how those begin, far enough that a
network of somebody's own does not fit by chance; alpha, input size, head and a cut-off tail do not matter.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from birdsonnx.model.graph import Array, part_of
from birdsonnx.runtime.sessions import Session

Step = tuple[str, Mapping[str, Any]]
"""A layer's class name and config."""

PROBES = ((0, 0, 0), (255, 255, 255), (10, 120, 200))
"""Pixels, RGB; a network of one channel gets the first."""
NORMALISED = 16
"""Inputs whose range is at most this are not pixels: `tf` spans 2, `torch` 4.5, EfficientNet 9 at most."""
CENTRED = -64
"""Pixels of 0 that come out below this had a mean subtracted: `caffe` gives -104 and less."""


def preprocessing_of(model: ModelProto, weighted: Collection[str], steps: Iterable[Step]) -> str | None:
    """The mode for the pixels that a network takes: `caffe`, `torch`, `tf`, `none` where it preprocesses by
    itself, or None where nothing of that is certain.

    Args:
        model: float32 `[batch, channels, height, width]` to scores.
        weighted: paths of the layers that hold weights; a weight is called `<path>/<role>`.
        steps: the layers in order, nested models flattened.
    """
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    pixels = np.array(PROBES, np.float32)[:, :channels]
    seen = _before_the_weights(model, weighted, pixels)
    if seen is None:
        return None
    if seen.shape != pixels.shape or not np.allclose(seen, pixels, rtol=0, atol=1e-3):
        own = np.ptp(seen, axis=0).max() <= NORMALISED or seen[0].max() <= CENTRED
        return "none" if own and np.ptp(seen) > 0 else None
    longest = max(len(tokens) for _, tokens in SIGNATURES.values())
    begins = list(islice(_tokens(steps), longest))
    for mode, tokens in SIGNATURES.values():
        if len(begins) >= len(tokens) and all(map(fnmatchcase, begins, tokens)):
            return mode
    return None


# --- The layers before the first weights -----------------------------------------------------------------


def _before_the_weights(model: ModelProto, weighted: Collection[str], pixels: Array) -> Array | None:
    """What the first layer with weights gets for `pixels` `[count, channels]`, in the middle of pictures of
    one colour; None where that is no picture."""
    graph = model.graph
    first = next((node for node in graph.node if _has_weights(node, weighted)), None)
    tensor = graph.output[0].name if first is None else first.input[0]
    [source] = graph.input
    sides = [dim.dim_value for dim in source.type.tensor_type.shape.dim][2:]
    pictures = np.broadcast_to(pixels[:, :, None, None], [*pixels.shape, *sides]).astype(np.float32)
    if tensor != source.name:
        front = part_of(model, tensor, model.graph.input)
        [pictures] = Session(front.SerializeToString()).run({source.name: pictures}).values()
    if pictures.ndim == 2:  # flattened for a Dense, channels last as Keras has them
        if pictures.shape[1] % pixels.shape[1]:
            return None
        pictures = pictures.reshape(len(pixels), 1, -1, pixels.shape[1]).transpose(0, 3, 1, 2)
    if pictures.ndim != 4:
        return None
    middle: Array = pictures[:, :, pictures.shape[2] // 2, pictures.shape[3] // 2]
    return middle


def _has_weights(node: NodeProto, weighted: Collection[str]) -> bool:
    return any(name.rpartition("/")[0] in weighted for name in node.input)


# --- How the networks of keras.applications begin -------------------------------------------------------


def _tokens(steps: Iterable[Step]) -> Iterator[str]:
    """The layers that make a network what it is, in words: `conv64:7/2sb` is a convolution of 64 filters,
    7 x 7, stride 2, with padding `same` and a bias; `bn:0.001` a BatchNorm of this epsilon. Its momentum is
    for training alone, where everybody may choose another.
    """
    for kind, config in steps:
        if kind in CONVOLUTIONS:
            kernel = "x".join(str(side) for side in dict.fromkeys(_sides(config["kernel_size"])))
            same = "s" if config.get("padding") == "same" and kernel != "1" else ""
            bias = "b" if config.get("use_bias", True) else ""
            stride = _sides(config.get("strides", 1))[0]
            yield f"{CONVOLUTIONS[kind]}{config.get('filters', '')}:{kernel}/{stride}{same}{bias}"
        elif kind == "BatchNormalization":
            scale = "" if config.get("scale", True) else "-scale"
            yield f"bn:{config.get('epsilon', 1e-3):g}{scale}"
        elif kind in POOLINGS:
            pool = _sides(config.get("pool_size", 2))[0]
            yield f"{POOLINGS[kind]}:{pool}/{_sides(config.get('strides') or pool)[0]}"
        elif kind == "ReLU":
            yield "relu6" if config.get("max_value") == 6 else "relu"
        activation = config.get("activation")
        if isinstance(activation, str) and activation != "linear":
            yield activation


def _sides(value: Any) -> list[Any]:
    """A config's sizes as a list; one number stands for all."""
    return list(value) if isinstance(value, list | tuple) else [value]


CONVOLUTIONS = {"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "SeparableConv2D": "separable"}
POOLINGS = {"MaxPooling2D": "max", "AveragePooling2D": "average"}

_BN_RELU = "bn:1.001e-05 relu "
_RESNET_V1 = f"conv64:1/1b {_BN_RELU} conv64:3/1sb {_BN_RELU} conv256:1/1b "
_RESNET_V2 = f"{_BN_RELU} conv64:1/1 {_BN_RELU} conv64:3/1 {_BN_RELU} "
_INCEPTION = "bn:0.001-scale relu "
_BN = "bn:0.001 "
_RELU6 = "bn:0.001 relu6 "
_V2_BLOCK = f"conv*:1/1 {_RELU6} depthwise:3/{{}} {_RELU6} conv*:1/1 bn:0.001 "


def _xception(filters: int) -> str:
    separable = f"separable{filters}:3/1s {_BN}"
    return f"relu {separable} relu {separable} conv{filters}:1/2 max:3/2 {_BN}"


def _vgg(*blocks: tuple[int, int]) -> str:
    return " ".join(count * f"conv{filters}:3/1sb relu " + "max:2/2" for filters, count in blocks)


SIGNATURES: dict[str, tuple[str, list[str]]] = {
    family: (mode, text.split())
    for family, mode, text in (
        (
            "ResNet",
            "caffe",
            f"conv64:7/2b {_BN_RELU} max:3/2"
            f" {_RESNET_V1} conv256:1/1b bn:1.001e-05 {_BN_RELU} {_RESNET_V1} {_BN_RELU}"
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
            f"conv32:3/2 {_BN} relu conv64:3/1 {_BN} "
            + (_xception(128) + _xception(256) + _xception(728))
            + 3 * f"relu separable728:3/1s {_BN} ",
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
            f"conv*:3/2s {_RELU6} depthwise:3/1s {_RELU6} conv*:1/1 bn:0.001 "
            + "".join(_V2_BLOCK.format(stride) for stride in ("2", "1s", "2", "1s", "1s", "2")),
        ),
        (
            "NASNet",
            "tf",
            f"conv*:3/2 {_BN} relu conv*:1/1 {_BN} relu relu separable*:5/2 separable*:7/2"
            f" {_BN} {_BN} relu relu separable*:5/1s separable*:7/1s",
        ),
    )
}
"""Family: mode and the tokens that it begins with, `*` for any number of filters. What is missing here begins
with a Rescaling or Normalization of its own (MobileNetV3, EfficientNet, EfficientNetV2, ConvNeXt)."""
