"""Predictions read from their file, once: with figures where the right classes are known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdsonnx.errors import UnlabelledError
from birdsonnx.inference.evaluating import evaluation
from birdsonnx.inference.evaluating.answers import Answers
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.inference.evaluating.labels import labels_of
from birdsonnx.inference.keeping import hdf5
from birdsonnx.inference.keeping.hdf5 import Predictions
from birdsonnx.runtime.audience import Audience


@dataclass(frozen=True)
class Read:
    """What a predictions file holds."""

    answers: Answers
    classes: tuple[str, ...]
    """Their names; `class 7` where the file has none."""
    figures: Evaluation | None
    """None where the right classes are not known, or no photo has finite numbers."""
    refused: list[str]
    unlabelled: str = ""
    """Why the right classes are not known; empty where they are."""


def read(path: Path, labels: Path | None, audience: Audience) -> Read:
    """Read predictions, and evaluate them where a class is known for each: by `labels`, a CSV of name,class,
    or by their names.

    Raises:
        DataError: no predictions file, or one that is damaged; labels that do not fit it.
    """
    answers = Answers()
    with hdf5.reading(path) as found:
        try:
            classes, indices = labels_of(found, str(path), labels)
        except UnlabelledError as unknown:
            if labels is not None:
                raise
            classes = found.classes or tuple(f"class {index}" for index in range(found.width))
            return Read(answers, classes, None, _noted(found, answers, audience), str(unknown))
        outcome = evaluation.evaluate_predictions(found, classes, indices, audience, answers)
        return Read(answers, classes, outcome.figures, outcome.refused)


def _noted(found: Predictions, answers: Answers, audience: Audience) -> list[str]:
    """Note the finite answers; the other photos, with the reason."""
    refused = []
    with audience.progress("predictions", len(found.names)) as advance:
        for name, log_probs in zip(found.names, found.rows(), strict=True):
            advance(1)
            if np.isfinite(log_probs).all():
                answers.add(name, log_probs)
            else:
                refused.append(found.refusal_of(name))
    return refused
