"""What a model says of photos, as a program gets it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import DataError
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Verdict


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo."""

    name: str
    """The photo's path below the folder that was given; of a photo itself its file name."""
    path: Path
    class_name: str
    """The likeliest class, of those that can occur."""
    probability: float
    """Of that class, 0 to 1."""
    top: tuple[tuple[str, float], ...]
    """The likeliest classes with their probabilities, the likeliest first; as many as `top_k`."""
    log_probs: npt.NDArray[np.float32]
    """What the network answered of every class, in the order of `Model.classes`: float32 `(classes,)`."""
    said: str
    """What is said of it: the class; or, where `level` is none, what is said instead."""
    level: str
    """`class`; or a level of the taxonomy; `unsure`, where nothing reaches its threshold; `unknown`, where
    the model takes it for none of its classes."""
    said_probability: float
    """Of what is said; where that is nothing, of the class."""
    instead_of: str | None = None
    """The likeliest class of all, where it cannot occur."""
    known: float | None = None
    """How much it is like photos of the classes, where the model says so."""


class Predictions(Sequence[Prediction]):
    """One `Prediction` for each photo that could be used, in the order of their names.

    Attributes:
        refused: why each photo that could not be used was not, one line each.
        notes: by what was decided what is said of them, and which names in a list of species or a taxonomy
            the model does not have, one line each.
    """

    def __init__(
        self, named: Sequence[Prediction], refused: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        self._named = tuple(named)
        self.refused = tuple(refused)
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        return self._named[index]

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return f"<{len(self)} predictions, {len(self.refused)} photos refused>"


def prediction_of(photo: Photo, log_probs: npt.NDArray[np.float32], verdict: Verdict) -> Prediction:
    return Prediction(
        photo.name,
        photo.path,
        *verdict.top[0],
        tuple(verdict.top),
        log_probs,
        verdict.said,
        verdict.level,
        verdict.probability,
        None if verdict.instead_of is None else verdict.instead_of[0],
        verdict.known,
    )


def in_order(named: list[Prediction], refused: list[str], notes: list[str]) -> Predictions:
    if not named:
        raise DataError("not one photo can be used:", refused)
    return Predictions(sorted(named, key=lambda each: each.name), refused, notes)
