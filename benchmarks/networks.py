"""Every classifier of keras.applications through `export`, in one table.

    python -m benchmarks.networks [--only NAME ...] [--all] [--json FILE]

Each network is built with random weights at a small input size, made to behave like a trained one (see
`realistic`), converted and compared with Keras: atol 1e-4 + rtol 1e-5 on log-probabilities, two batch sizes.
Its preprocessing must be recognised from its layers; what is right is the network's own `preprocess_input`.
One network per process, one after another. Markdown goes to stdout, all figures to `--json FILE`.
"""

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import ModelError
from birdsonnx.network import architectures, conversion, keras_source, parity, recognition
from birdsonnx.network.keras_source import KerasNetwork

MODULES = {
    "ResNet": "resnet",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "DenseNet": "densenet",
    "InceptionV3": "inception_v3",
    "InceptionResNetV2": "inception_resnet_v2",
    "Xception": "xception",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3",
    "EfficientNetB": "efficientnet",
    "EfficientNetV2": "efficientnet_v2",
    "NASNet": "nasnet",
    "ConvNeXt": "convnext",
}
"""The module of keras.applications whose `preprocess_input` a network wants: the longest prefix of its name
decides; a ResNet that ends in V2 wants `resnet_v2`."""

DEFAULT = (
    *("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2", "VGG16", "VGG19"),
    *("DenseNet121", "DenseNet169", "DenseNet201", "InceptionV3", "InceptionResNetV2", "Xception"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"),
    *("EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3"),
    *("EfficientNetV2B0", "EfficientNetV2S", "NASNetMobile", "ConvNeXtTiny"),
)
"""What runs without `--only` or `--all`: each family, without the largest members."""

LARGER_INPUT = {"InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}
"""The networks that Keras does not build for SMALL_INPUT."""
SMALL_INPUT = 64

SPREAD = 3.0
DRAWS = 100
CLASSES = 5
CALIBRATION = 16
"""Pictures that set the BatchNorm statistics and the head."""

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


@dataclass
class Row:
    """What the table says of a network. A group of columns is a function that fills in its fields."""

    network: str
    input: str = ""
    parameters: int = 0
    preprocessing: str = ""
    """The mode recognised from the layers, or why it is wrong."""
    spread: float = 0.0
    """Smallest difference between the best and the worst class over the parity check's kind of pictures."""
    swapped: float = 0.0
    """Largest change of a log-probability if red and blue are swapped: what a wrong preprocessing costs."""
    parity: dict[int, float] | None = None
    """Largest difference from Keras per batch size; None: refused or different."""
    problem: str | None = None


COLUMNS = {
    "network": lambda row: row.network,
    "input": lambda row: row.input,
    "parameters": lambda row: f"{row.parameters / 1e6:.1f} M",
    "preprocessing": lambda row: row.preprocessing,
    "logit spread": lambda row: f"{row.spread:.1f}",
    "BGR/RGB swap": lambda row: f"{row.swapped:.2f}",
    "parity": lambda row: f"{max(row.parity.values()):.1e}" if row.parity else row.problem,
}
"""Heading and cell of each column of the Markdown table."""


# --- A network that behaves like a trained one ----------------------------------------------------------


def realistic(model: Any, preprocess: Any, seed: int = 0) -> Any:
    """Give a Keras classifier with random weights what makes a comparison of its answers mean something.

    Fresh networks answer nearly the same for every picture: BatchNorm holds no statistics, LayerScale
    (ConvNeXt) starts at 1e-6. Here BatchNorm gets the statistics of one batch of pictures with the spectrum
    of photos, in one training pass without momentum, so that each normalises what the ones in front of it
    give; LayerScale gets values around 0.5. Gamma is small and beta positive, as in trained networks: with
    gamma around 1 a change of 1e-6 in the input moves ResNet50's log-probabilities by 2e-3 (here 1e-4), and
    a comparison would show the chaos of random layers instead of mistakes. `preprocess` maps float32 pixels
    0-255 to the network's input, as `preprocess_input` does.

    The last Dense is drawn anew, centred over the pictures so that they decide and not the bias, and scaled
    so that the logits' spread, the difference between the best and the worst class, is at least SPREAD for
    every picture of the parity check. Of DRAWS draws it is the one that needs the least scaling for that,
    which would scale rounding errors too.
    """
    keras = keras_source.import_keras()
    keras.utils.set_random_seed(seed)
    generator = np.random.default_rng(seed)
    network = KerasNetwork(model, {})
    norms = [layer for layer in network.layers if type(layer).__name__ == "BatchNormalization"]
    for layer in network.layers:
        kind = type(layer).__name__
        if kind == "BatchNormalization":
            if layer.gamma is not None:
                layer.gamma.assign(generator.uniform(0.2, 0.6, layer.gamma.shape))
            if layer.beta is not None:  # of the size of gamma, which is 1 where there is none (InceptionV3)
                most = 1.0 if layer.gamma is not None else 2.5
                layer.beta.assign(generator.uniform(0.0, most, layer.beta.shape))
        elif kind == "LayerScale":
            layer.gamma.assign(generator.uniform(0.2, 0.8, layer.gamma.shape))
    height, width, channels = model.inputs[0].shape[1:]

    def pictures(count: int, seed: int) -> Values:
        values: Values = preprocess(
            parity.natural_images(count, height, width, channels, seed).astype(np.float32)
        )
        return values

    values = pictures(CALIBRATION, seed + 1000)
    _set_statistics(model, norms, values)
    compared = np.concatenate([pictures(batch, batch) for batch in parity.BATCHES])
    _set_head(keras, model, values, compared, generator)
    return model


def _set_statistics(model: Any, norms: Sequence[Any], values: Values) -> None:
    """Let the norms alone train, for one pass: no Dropout, no augmentation."""
    flags = [(layer.trainable, layer.momentum) for layer in norms]
    for layer in norms:
        layer.trainable, layer.momentum = True, 0.0
        layer.call = functools.partial(_trained, layer.call)
    model(values, training=False)
    for layer, (trainable, momentum) in zip(norms, flags, strict=True):
        del layer.call
        layer.trainable, layer.momentum = trainable, momentum


def _trained(call: Any, inputs: Any, **_: Any) -> Any:
    """A layer's call in training, whatever the model says."""
    return call(inputs, training=True)


def _set_head(
    keras: Any, model: Any, values: Values, compared: Values, generator: np.random.Generator
) -> None:
    head = model.layers[-1]
    below = keras.Model(model.inputs, head.input)
    centre = below.predict_on_batch(values).astype(np.float64).mean(axis=0)
    features = below.predict_on_batch(compared) - centre
    draws = generator.normal(size=(DRAWS, *head.kernel.shape))
    spreads = np.ptp(features @ draws, axis=2).min(axis=1)
    kernel = draws[spreads.argmax()] * (SPREAD / spreads.max())
    head.set_weights([kernel, -centre @ kernel][: len(head.weights)])


def preprocess_input(name: str) -> Any:
    """What keras.applications itself does with pixels 0-255 in front of a network."""
    keras = keras_source.import_keras()
    if name.startswith("ResNet") and name.endswith("V2"):
        return keras.applications.resnet_v2.preprocess_input
    prefix = max((prefix for prefix in MODULES if name.startswith(prefix)), key=len)
    return getattr(keras.applications, MODULES[prefix]).preprocess_input


def realistic_application(
    name: str, size: tuple[int, int] | None = None, classes: int = CLASSES, seed: int = 0
) -> KerasNetwork:
    """A network of keras.applications by `architectures.build` with random weights, made realistic."""
    side = LARGER_INPUT.get(name, SMALL_INPUT)
    network = architectures.build(name, classes, "none", seed, size or (side, side))
    realistic(network.model, lambda pixels: preprocess_input(name)(pixels.copy()), seed)
    return network


# --- Groups of columns ----------------------------------------------------------------------------------


def fill_facts(row: Row, network: KerasNetwork) -> None:
    height, width, channels = network.model.inputs[0].shape[1:]
    row.input = f"{width} x {height} x {channels}"
    row.parameters = int(network.model.count_params())


def fill_preprocessing(row: Row, network: KerasNetwork) -> str:
    """Compare the recognised mode with Keras' own preprocessing; gives the mode that is right."""
    right = mode_of(row.network)
    found = recognition.preprocessing_of(network.model)
    row.preprocessing = found or "not recognised"
    if found not in (right, None):
        row.preprocessing, row.problem = f"{found}, right is {right}", "wrong preprocessing"
    return right


def fill_parity(row: Row, network: KerasNetwork, mode: str) -> conversion.Conversion | None:
    """Convert and compare; the converted model for the groups that go on with it."""
    try:
        converted = conversion.convert(network, row.network, mode)
    except ModelError as error:
        row.problem = str(error)
        return None
    row.parity = converted.parity.differences
    height, width, channels = converted.model.input_size
    pictures = parity.natural_images(7, height, width, channels, seed=7)
    answers, swapped = (answer(converted, images) for images in (pictures, pictures[..., ::-1]))
    row.spread = float(np.ptp(answers, axis=1).min())
    row.swapped = float(np.abs(answers - swapped).max())
    return converted


def answer(converted: conversion.Conversion, pictures: Pixels) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(converted.model.serialized(), providers=["CPUExecutionProvider"])
    log_probs: npt.NDArray[np.float32] = session.run(None, {"images": np.ascontiguousarray(pictures)})[0]
    return log_probs


def mode_of(name: str) -> str:
    """The mode that does what the network's own `preprocess_input` does with a colour ramp."""
    from birdsonnx.network.preprocessing import MODES, of_mode

    ramp = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) * 5
    wanted = preprocess_input(name)(ramp.astype(np.float32))
    [mode] = [mode for mode in MODES if np.allclose(of_mode(mode, 3)(ramp), wanted, rtol=1e-4, atol=1e-4)]
    return mode


def row_of(name: str) -> Row:
    """All columns of one network."""
    row = Row(name)
    network = realistic_application(name)
    fill_facts(row, network)
    mode = fill_preprocessing(row, network)
    fill_parity(row, network, mode)
    return row


# --- The table ------------------------------------------------------------------------------------------


def in_a_process(name: str) -> Row:
    """`row_of` in a process of its own; one that dies is a row too."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.networks", "--one", name],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row(name, problem=f"exit {done.returncode}: {last}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    cells = [list(COLUMNS), *([str(cell(row)) for cell in COLUMNS.values()] for row in rows)]
    lines = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([lines[0], "|---" * len(COLUMNS) + "|", *lines[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", type=architectures.named, help="these networks")
    parser.add_argument("--all", action="store_true", help="the largest networks too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(row_of(options.one))))
        return 0
    rows = []
    for name in options.only or (architectures.DEFAULT_SIZES if options.all else DEFAULT):
        rows.append(in_a_process(name))
        print(f"{name}: {rows[-1].problem or 'done'}", file=sys.stderr)
    print(markdown(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if any(row.problem for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
