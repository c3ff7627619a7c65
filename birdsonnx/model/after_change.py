"""What a model says of its answers, which is not true any more once its weights or its input change."""

from collections.abc import Callable
from typing import Any

from birdsonnx.model.known_part import without_known
from birdsonnx.model.model_file import BirdModel

FITTED = {
    "calibration": "the calibration of its probabilities",
    "thresholds": "its thresholds",
    "known": "its output 'known'",
}
"""What was fitted to a model's answers about validation photos, by its key in the metadata."""


def without_fitted(model: BirdModel, why: str, say: Callable[[str], None]) -> BirdModel:
    """The model without what was fitted to its answers; a line says what that was.

    Args:
        why: what changes, as the end of a sentence: `which its training changes`.
    """
    held = {key: words for key, words in FITTED.items() if getattr(model.metadata, key) is not None}
    if not held:
        return model
    *others, last = held.values()
    listed = " and ".join(filter(None, (", ".join(others), last)))
    plural = "are" if others or "thresholds" in held else "is"
    say(f"{model.where}: {listed} {plural} left out, {why}")
    proto = without_known(model.proto) if "known" in held else model.proto
    nothing: dict[str, Any] = dict.fromkeys(held)
    return BirdModel(proto, model.metadata.having(**nothing), model.where)
