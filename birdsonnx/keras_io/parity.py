"""Does the `.onnx` say what Keras says? Checked after every conversion, with Keras' own preprocessing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.keras_source import import_keras
from birdsonnx.model.preprocessing import Preprocessing

BATCHES = (1, 7)
TOLERANCE = 1e-4
"""Absolute, on log-probabilities. Two float32 orders of summation over ResNet50 differ by about 3e-6."""
RELATIVE = 1e-5
"""Of the log-probability: float32 keeps 7 digits, and log-probabilities of -1000 exist."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference of log-probabilities per batch size."""

    differences: dict[int, float]

    def __str__(self) -> str:
        each = ", ".join(f"{value:.1e} at batch {batch}" for batch, value in self.differences.items())
        return f"{each} (tolerance {TOLERANCE:g})"


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
    scores = np.asarray(model.predict_on_batch(values), np.float64)
    if np.allclose(scores.sum(axis=1), 1, atol=1e-3) and scores.min() >= 0:
        with np.errstate(divide="ignore"):
            return np.log(scores)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs


def check(serialized: bytes, model: Any, preprocessing: Preprocessing, where: str) -> Parity:
    """Compare the `.onnx` with Keras at each batch size.

    Raises:
        ModelError: another output shape, or differences beyond the tolerance.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    [images_input] = session.get_inputs()
    height, width, channels = images_input.shape[1:]
    differences = {}
    for batch in BATCHES:
        images = natural_images(batch, height, width, channels, seed=batch)
        expected = keras_log_probs(model, preprocessing, images)
        [found] = session.run(None, {images_input.name: images})
        if found.shape != expected.shape:
            raise ModelError(f"{where}: parity check failed: shape {found.shape}, Keras {expected.shape}")
        visible = np.isfinite(expected)  # a probability that float32 cannot hold has no logarithm
        if not visible.any():
            raise ModelError(f"{where}: parity check failed: Keras' own answers are not finite")
        error = np.abs(found - expected)[visible]
        allowed = TOLERANCE + RELATIVE * np.abs(expected[visible])
        differences[batch] = float(error.max())
        if not np.isfinite(found).all() or (error > allowed).any():
            raise ModelError(
                f"{where}: parity check failed: '{images_input.name}' at batch {batch} differs from Keras by "
                f"{differences[batch]:.2e} in log-probability (tolerance {TOLERANCE:g})"
            )
    return Parity(differences)
