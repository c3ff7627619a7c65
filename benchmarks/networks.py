"""Every classifier of keras.applications through `export`, in one table.

    python -m benchmarks.networks [--only NAME ...] [--all] [--json FILE]

Each network is built with random weights at a small input size, made to behave like a trained one (see
`realistic`), converted and compared with Keras: atol 1e-4 + rtol 1e-5 on log-probabilities, two batch sizes.
Its preprocessing must be recognised from its layers; what is right is the network's own `preprocess_input`.
Then the product trains it on made-up pictures, its head and all its layers, and the derivative of the loss
along a direction of all weights is compared with the difference of two losses. One network per process, one
after another. Markdown goes to stdout, all figures to `--json FILE`.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from birdsonnx.config import reading as config
from birdsonnx.errors import BirdsonnxError, ModelError
from birdsonnx.inference.timing import timed
from birdsonnx.keras_io import architectures, conversion, parity, recognition
from birdsonnx.keras_io.reading import KerasFile, graph_of, read
from birdsonnx.keras_io.tf2onnx_road import applications, keras_source
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork
from birdsonnx.model.metadata import INPUT, OUTPUT
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.weights import having_weights
from birdsonnx.passes.dropout import mask_of
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.training_log import TrainingLog
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, Session
from birdsonnx.training import run
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network, Partition

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
PER_CLASS = 6
CHANGE = 0.1
"""Of the summed loss (around 20) that a difference measures, each way: far above float32's rounding, far
below where the loss bends."""
CALIBRATION = 16
"""Pictures that set the BatchNorm statistics and the head."""

RATE = 1e-4
"""Adam's, all layers trained."""
GENTLER = {"EfficientNetB3": 1e-5, "EfficientNetV2S": 1e-5}
"""They drop so many blocks at random that with made-up weights steps of RATE overshoot, in Keras as here: the
losses of EfficientNetB3's epochs are 11.3, 15.5 and 7.9 by its `fit`, and 13.5, 10.4 and 14.1 by ours."""

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
    head: tuple[float, float] | None = None
    """Training loss of the first and the last epoch, the last layer trained on kept features."""
    all_layers: tuple[float, float] | None = None
    """The same, everything trained."""
    derivative: float = 0.0
    """Of the loss along a direction of all weights, over the difference of two losses: 1 is right."""
    images_per_second: float = 0.0
    """A bare session at this input, one stream per core."""
    problem: str | None = None


COLUMNS = {
    "network": lambda row: row.network,
    "input": lambda row: row.input,
    "parameters": lambda row: f"{row.parameters / 1e6:.1f} M",
    "preprocessing": lambda row: row.preprocessing,
    "logit spread": lambda row: f"{row.spread:.1f}",
    "BGR/RGB swap": lambda row: f"{row.swapped:.2f}",
    "parity": lambda row: f"{max(row.parity.values()):.1e}" if row.parity else row.problem,
    "head, loss": lambda row: _fell(row.head, row.problem),
    "all layers, loss": lambda row: _fell(row.all_layers, row.problem),
    "derivative": lambda row: f"{row.derivative:.3f}",
    "images/s": lambda row: f"{row.images_per_second:.0f}",
}
"""Heading and cell of each column of the Markdown table."""


def _fell(losses: tuple[float, float] | None, problem: str | None) -> str:
    return problem or "" if losses is None else f"{losses[0]:.2f} -> {losses[1]:.2f}"


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
    below = keras.Model(model.inputs[0], head.input)
    # Once each, for which compiling a graph, as `predict` does, takes longer.
    centre = below(values, training=False).numpy().astype(np.float64).mean(axis=0)
    features = below(compared, training=False).numpy() - centre
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
    """A network of keras.applications by `applications.build` with random weights, made realistic."""
    side = LARGER_INPUT.get(name, SMALL_INPUT)
    network = applications.build(name, classes, "none", seed, size or (side, side))
    realistic(network.model, lambda pixels: preprocess_input(name)(pixels.copy()), seed)
    return network


# --- Groups of columns ----------------------------------------------------------------------------------


def as_file(network: KerasNetwork) -> KerasFile:
    """What Keras saves of a network, as it is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.keras"
        network.model.save(path)
        return read(path)


def fill_facts(row: Row, network: KerasNetwork) -> None:
    height, width, channels = network.model.inputs[0].shape[1:]
    row.input = f"{width} x {height} x {channels}"
    row.parameters = int(network.model.count_params())


def fill_preprocessing(row: Row, network: KerasNetwork) -> str:
    """Compare the recognised mode with Keras' own preprocessing; gives the mode that is right."""
    right = mode_of(row.network)
    file = as_file(network)
    steps = [(layer.kind, layer.config) for _, layer, _ in file.leaves if not layer.is_operation]
    weighted = {layer.name for layer in file.layers if layer.kind != "Normalization"}
    found = recognition.preprocessing_of(graph_of(file).model, weighted, steps)
    row.preprocessing = found or "not recognised"
    if found not in (right, None):
        row.preprocessing, row.problem = f"{found}, right is {right}", "wrong preprocessing"
    return right


def fill_parity(row: Row, network: KerasNetwork, mode: str) -> conversion.Conversion | None:
    """Convert and compare; the converted model for the groups that go on with it."""
    try:
        converted = conversion.convert(as_file(network), row.network, mode)
        model = converted.model
        compared = parity.check(model.serialized(), network.model, model.metadata.preprocessing, row.network)
    except ModelError as error:
        row.problem = str(error)
        return None
    row.parity = compared.differences
    height, width, channels = converted.model.input_size
    pictures = parity.natural_images(7, height, width, channels, seed=7)
    answers, swapped = (answer(converted, images) for images in (pictures, pictures[..., ::-1]))
    row.spread = float(np.ptp(answers, axis=1).min())
    row.swapped = float(np.abs(answers - swapped).max())
    return converted


def fill_training(row: Row, model: BirdModel, folder: Path) -> None:
    """Train the head, then all layers, as a user does, on pictures whose classes have a colour each."""
    height, width, channels = model.input_size
    for label in range(CLASSES):
        pictures = parity.natural_images(PER_CLASS, height, width, channels, seed=100 + label)
        tint = np.array([(label % 3 == channel) * 60 + 20 * label for channel in range(channels)])
        for number, picture in enumerate(pictures):
            path = folder / "data" / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(picture // 2 + tint, 0, 255).astype(np.uint8)).save(path)
    model.save(folder / "model.onnx")
    try:
        row.head = trained(folder, "cache", ["dense"], epochs=8, rate=1e-2)
        row.all_layers = trained(folder, False, ["*"], epochs=3, rate=GENTLER.get(row.network, RATE))
    except BirdsonnxError as error:
        row.problem = str(error)
        return
    for layers, losses in (("head", row.head), ("all layers", row.all_layers)):
        if not losses[1] < losses[0]:
            row.problem = f"{layers}: the loss does not fall ({losses[0]:.3f} -> {losses[1]:.3f})"


def trained(
    folder: Path, cache: str | bool, layers: Sequence[str], epochs: int, rate: float
) -> tuple[float, float]:
    """Loss of the first and the last epoch of a run of the product."""
    own = {"trainable": list(layers), "cache": str(folder / cache) if isinstance(cache, str) else cache}
    network = {
        "num_epochs": epochs,
        "data": {"input_path": str(folder / "data"), "batch_size": 8},
        "checkpoints": {"load": str(folder / "model.onnx")},
        "optimizer": {"type": "Adam", "learning_rate": rate},
        "birdsonnx": own,
    }
    settings = config.parse(json.dumps({"neural_network": network}), "benchmark")
    log = TrainingLog(Console(speaks=False), None, epochs, verbose=False, speaks=False)
    outcome = run.train(settings, Ranks(), log)
    return outcome.epochs[0].train_loss, outcome.epochs[-1].train_loss


def fill_derivative(row: Row, model: BirdModel) -> None:
    """Compare the gradient of all weights with a central difference of float32 losses, nothing dropped.

    The direction of each tensor is that of its gradient, as long as the tensor itself, so that none of them
    drowns in the others: a tensor whose gradient were missing or wrong would change the difference alone.
    """
    part, weights = everything(model)
    loss = Loss(np.ones(CLASSES, np.float32), 0.0, 0.0)
    pixels = parity.natural_images(CALIBRATION // 2, *model.input_size, seed=5)
    labels = np.arange(len(pixels)) % CLASSES
    masks = {mask_of(each): np.ones((len(pixels), *each.shape), np.float32) for each in part.dropouts}

    def load(photos: Sequence[int]) -> dict[str, Any]:
        rows = {name: mask[photos] for name, mask in masks.items()}
        return {part.source: pixels[photos], TARGETS: loss.targets(labels[photos]), **rows}

    total = Gradients(part, loss, weights, 2).sum_over(list(range(len(pixels))), load).total
    gradient = total[:-1].astype(np.float64)
    direction = np.zeros_like(gradient)
    generator = np.random.default_rng(0)
    for span in weights.spans:
        along = gradient[span] if gradient[span].any() else generator.normal(size=gradient[span].shape)
        length = max(np.sqrt(np.mean(weights.flat[span] ** 2)), 1e-3)
        direction[span] = along / np.sqrt(np.mean(along**2)) * length
    expected = float(gradient @ direction)
    start = weights.flat.copy()
    losses = []
    for sign in (1, -1):
        weights.flat[...] = start + sign * CHANGE / expected * direction
        session = Session(having_weights(part.trainable, weights.named).SerializeToString())
        log_probs = session.run({part.source: pixels})[OUTPUT].astype(np.float64)
        losses.append(-log_probs[np.arange(len(labels)), labels].sum())
    row.derivative = float(losses[0] - losses[1]) / (2 * CHANGE)
    if abs(row.derivative - 1) > 0.02:
        row.problem = f"derivative {row.derivative:.3f} of what the gradient says"


def everything(model: BirdModel) -> tuple[Partition, FlatWeights]:
    """The network with all its layers trained."""
    network = Network(model, [layer.name for layer in model.metadata.layers])
    part = network.divide(network.boundaries()[-1])
    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    return part, weights


def fill_speed(row: Row, model: BirdModel) -> None:
    """Images per second of a bare session, for two seconds."""
    session, streams = Session(model.serialized()), os.cpu_count() or 1
    pixels = parity.natural_images(PHOTOS_PER_RUN, *model.input_size)
    timing = timed(lambda: session.run({INPUT: pixels}), time.perf_counter() + 2, streams)
    row.images_per_second = len(timing.durations_s) * len(pixels) / timing.elapsed_s


def answer(converted: conversion.Conversion, pictures: Pixels) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(converted.model.serialized(), providers=["CPUExecutionProvider"])
    log_probs: npt.NDArray[np.float32] = session.run(None, {"images": np.ascontiguousarray(pictures)})[0]
    return log_probs


def mode_of(name: str) -> str:
    """The mode that does what the network's own `preprocess_input` does with a colour ramp."""
    from birdsonnx.model.preprocessing import MODES, of_mode

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
    converted = fill_parity(row, network, mode)
    if converted is not None:
        fill_use(row, converted.model)
    return row


def fill_use(row: Row, model: BirdModel) -> None:
    """The columns that need no Keras."""
    fill_speed(row, model)
    try:
        fill_derivative(row, model)
    except BirdsonnxError as error:
        row.problem = str(error)
    with tempfile.TemporaryDirectory() as folder:
        fill_training(row, model, Path(folder))


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
