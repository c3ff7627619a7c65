"""An int8 form against the float32 model that it was made of, on the photos that it was calibrated with.

Their mean difference, class by class, is taken out (`passes/logit_shift`); a form that still names too many
photos otherwise is refused: it would be wrong without a word.

The threshold of the output `known` goes with its mean difference. Of a ResNet50 on 12 species int8 takes 0.36
off `known`, so that 0.954 instead of 0.967 of the test photos would be kept; its AUROC stays (0.9996).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import ModelError
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.naming import name_photos
from birdsonnx.model.edits import copy_of
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.logit_shift import shift_logits
from birdsonnx.runtime.audience import NOBODY, Audience
from birdsonnx.runtime.ranks import Ranks

LEAST = 0.9
"""Share of the calibration photos that both must give the same class. Of 12 classes of birds 0.99 do; of a
network whose biases overflowed 0.2 did."""

Answers = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Log-probabilities, `[photos, classes]`, and `known`, `[photos]`, which is 0 where the network has none."""


def settled(
    model: BirdModel,
    quantized: BirdModel,
    photos: Sequence[Photo],
    threads: int,
    least: float,
    audience: Audience = NOBODY,
) -> BirdModel:
    """The int8 form without its mean error; its metadata say how many of the photos it names like float32.

    Args:
        model: the float32 model.
        quantized: its int8 form.
        photos: to compare on; all of them can be decoded.
        threads: that run photos beside each other.
        least: share of the photos that both must give the same class; of few photos one may differ anyway.

    Raises:
        ModelError: they agree on fewer.
    """
    with audience.progress("comparing int8 with float32: photos", 3 * len(photos)) as advance:

        def answers(of: BirdModel) -> Answers:
            return _answers(of, photos, threads, advance)

        (exact, known), (found, known_found) = answers(model), answers(quantized)
        agreed = _agreed(exact, found)
        shifted = BirdModel(copy_of(quantized.proto), quantized.metadata, quantized.where)
        difference = exact - found
        shift = (difference - difference.mean(axis=1, keepdims=True)).mean(axis=0)
        if np.isfinite(shift).all() and shift_logits(shifted.proto, shift):
            agreed_then = _agreed(exact, answers(shifted)[0])
            if agreed_then >= agreed:
                quantized, agreed = shifted, agreed_then
    differ = len(photos) - agreed
    if differ > max(1, (1 - least) * len(photos)):
        raise ModelError(
            f"{model.where}: int8 names {differ} of the {len(photos)} calibration photos otherwise than "
            f"float32, more than --min-agreement {least:g} allows; nothing was written; try more --photos or "
            "--method percentile, and train the network first if it is untrained"
        )
    record = {**(quantized.metadata.quantization or {}), "agreement": agreed / len(photos)}
    metadata = quantized.metadata.having(quantization=record)
    if metadata.known is not None:
        threshold = metadata.known["threshold"] + float((known_found - known).mean())
        metadata = metadata.having(known={**metadata.known, "threshold": threshold})
    return BirdModel(quantized.proto, metadata, quantized.where)


def _agreed(exact: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> int:
    return int((exact.argmax(axis=1) == found.argmax(axis=1)).sum())


def _answers(
    model: BirdModel, photos: Sequence[Photo], threads: int, advance: Callable[[int], None]
) -> Answers:
    """Raises ModelError where a photo has none, or is damaged by now."""
    classifier = open_classifier(model.serialized(), model.where, len(photos), threads)
    rows, known = [], []
    for named in name_photos(classifier, photos, Ranks()):
        if named.log_probs is None:
            raise ModelError(named.refusal)
        advance(1)
        rows.append(named.log_probs)
        known.append(0.0 if named.known is None else named.known)
    return np.array(rows, np.float64), np.array(known)
