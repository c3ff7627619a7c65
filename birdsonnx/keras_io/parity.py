"""Does the `.onnx` say what Keras says? Checked after an export where Keras is installed, with its reader of
the file and its preprocessing.

It proves that the operations are right. That the file was read right it proves only where Keras reads it
right: its reader of old files loses some arguments, so its layers are compared with the file first.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import InstallationError, ModelError
from birdsonnx.extras import how_to_install
from birdsonnx.keras_io.reading import KerasFile
from birdsonnx.keras_io.tf2onnx_road.keras_network import flat_layers
from birdsonnx.keras_io.tf2onnx_road.keras_source import import_keras, one_line
from birdsonnx.model.metadata import INPUT, OUTPUT
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.runtime.sessions import Session

BATCHES = (1, 7)
TOLERANCE = 1e-4
"""Absolute, on log-probabilities. Two float32 orders of summation over ResNet50 differ by about 3e-6."""
RELATIVE = 1e-5
"""Of the log-probability: float32 keeps 7 digits, and log-probabilities of -1000 exist."""
ROUNDINGS = 10
"""Times what another order of summation changes in this very network, as its tolerance. Networks of random
weights amplify rounding: a ResNet50 whose scores spread over 10 changes by 1e-3, a trained one by 3e-6."""
REASON = 160
"""Characters that a reason of Keras may have."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference of log-probabilities per batch size."""

    differences: dict[int, float]
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        each = ", ".join(f"{value:.1e} at batch {batch}" for batch, value in self.differences.items())
        return f"{each} (tolerance {self.tolerance:g})"


@dataclass(frozen=True)
class NotChecked:
    """Why there was nothing to compare with."""

    reason: str

    def __str__(self) -> str:
        return f"not checked: {self.reason}"


def compare(model: BirdModel, file: KerasFile, load: Callable[[], Any]) -> Parity | NotChecked:
    """Compare a converted network with Keras, where that is installed and reads the network as the file says.

    Args:
        model: the converted network.
        file: what was read.
        load: gives Keras' model of the same network and weights.

    Raises:
        ModelError: Keras answers something else.
    """
    try:
        keras = import_keras()
    except InstallationError:
        return NotChecked(f"Keras is not installed; for the comparison: {how_to_install('export')}")
    try:
        loaded = load()
    except ModelError as error:
        return NotChecked(f"Keras {keras.__version__} cannot read this network ({_short(str(error))})")
    for misread in differences_in_reading(loaded, file):
        return NotChecked(f"Keras {keras.__version__} reads it otherwise than the file says ({misread})")
    kept = {kind for layer in flat_layers(loaded) for kind in (layer.compute_dtype, layer.variable_dtype)}
    if kept - {"float32"}:
        return NotChecked(f"Keras computes this network in {min(kept - {'float32'})}, the .onnx in float32")
    try:
        return check(model.serialized(), loaded, model.metadata.preprocessing, model.where)
    except CannotRun as error:
        return NotChecked(f"Keras {keras.__version__} cannot run this network ({_short(str(error))})")


class CannotRun(ModelError):
    """Keras itself fails to predict."""


def differences_in_reading(model: Any, file: KerasFile) -> Iterator[str]:
    """Plain arguments that Keras' layers have otherwise than the file."""
    built: dict[str, list[Mapping[str, Any]]] = {}
    for layer in flat_layers(model):
        built.setdefault(layer.name, []).append(layer.get_config())
    for path, layer, _ in file.leaves:
        for config in built.get(layer.name, [])[:1]:
            for key, value in layer.config.items():
                if key in SAID_OTHERWISE or not _is_plain(value) or not _is_plain(config.get(key)):
                    continue
                if _listed(value) != _listed(config[key]):
                    yield f"{path}: {key} {value!r} became {config[key]!r}"


SAID_OTHERWISE = frozenset(("name", "trainable", "dtype", "activation", "batch_input_shape", "batch_shape"))
"""Arguments that the generations of Keras write in different ways."""


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(type(item) in (int, float) for item in value)
    return type(value) in (int, float)


def _listed(value: Any) -> list[Any]:
    """One number stands for a list of it, as in `axis` and `strides`."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    return items[:1] if len(set(items)) == 1 else items


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= REASON else text[:REASON] + " …"


def natural_images(
    count: int, height: int, width: int, channels: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Noise with the statistics of photos: a 1/f amplitude spectrum, channels that go together, and
    ImageNet's mean and deviation. uint8 `[count, height, width, channels]`.

    Spectrum after Field (1987), "Relations between the statistics of natural images and the response
    properties of cortical cells".
    """
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0 / max(height, width)
    noise = generator.standard_normal((count, channels + 1, height, width))
    smooth = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(height, width))
    smooth /= smooth.std(axis=(2, 3), keepdims=True)
    mixed = np.sqrt(0.8) * smooth[:, :1] + np.sqrt(0.2) * smooth[:, 1:]
    mean = np.resize([123.7, 116.3, 103.5], channels)[:, None, None]
    pixels = mean + 58.0 * mixed
    images: npt.NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return images.transpose(0, 2, 3, 1)


def keras_log_probs(
    model: Any, preprocessing: Preprocessing, images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """What Keras answers for uint8 RGB images: its own preprocessing, where it has one, and forward pass."""
    keras = import_keras()
    if preprocessing.name in ("caffe", "torch", "tf"):
        values: Any = images.astype(np.float32)
        values = keras.applications.imagenet_utils.preprocess_input(values, mode=preprocessing.name)
    else:
        values = preprocessing(images)
    try:
        scores = np.asarray(model.predict_on_batch(values), np.float64)
    except Exception as error:  # Keras raises many kinds, such as ValueError for a layer's name
        raise CannotRun(one_line(error)) from None
    if np.allclose(scores.sum(axis=1), 1, atol=1e-3) and scores.min() >= 0:
        with np.errstate(divide="ignore"):
            return np.log(scores)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs


def check(serialized: bytes, model: Any, preprocessing: Preprocessing, where: str) -> Parity:
    """Compare the `.onnx` with Keras at each batch size, or at the one that Keras' network is fixed to.

    Raises:
        ModelError: another output shape, or differences beyond the tolerance.
    """
    session, plain = Session(serialized), Session(serialized, plain=True)
    height, width, channels = session.input_shapes[INPUT][1:]
    differences: dict[int, float] = {}
    tolerance = TOLERANCE
    fixed = model.inputs[0].shape[0]
    for batch in BATCHES if fixed is None else (fixed,):
        images = natural_images(batch, height, width, channels, seed=batch)
        expected = keras_log_probs(model, preprocessing, images)
        found, otherwise = session.run({INPUT: images})[OUTPUT], plain.run({INPUT: images})[OUTPUT]
        if found.shape != expected.shape:
            raise ModelError(f"{where}: parity check failed: shape {found.shape}, Keras {expected.shape}")
        visible = np.isfinite(expected)  # a probability that float32 cannot hold has no logarithm
        if not visible.any():
            raise ModelError(f"{where}: parity check failed: Keras' own answers are not finite")
        error = np.abs(found - expected)[visible]
        tolerance = max(tolerance, ROUNDINGS * float(np.abs(found - otherwise)[visible].max()))
        allowed = tolerance + RELATIVE * np.abs(expected[visible])
        differences[batch] = float(error.max())
        if not np.isfinite(found).all() or (error > allowed).any():
            raise ModelError(
                f"{where}: parity check failed: '{INPUT}' at batch {batch} differs from Keras by "
                f"{differences[batch]:.2e} in log-probability (tolerance {tolerance:g})"
            )
    return Parity(differences, tolerance)
