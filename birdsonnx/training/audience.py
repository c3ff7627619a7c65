"""Whoever a training reports to, and the facts that it gets before the first epoch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from birdsonnx.artifacts.commands import Command
from birdsonnx.config.settings import Settings
from birdsonnx.images.folders import LabelledFolder
from birdsonnx.model.metadata import Dropout
from birdsonnx.model.model_file import BirdModel
from birdsonnx.training.boundary_choice import Choice
from birdsonnx.training.loop import Listener
from birdsonnx.training.losses import Loss


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is about to be trained, on what and how."""

    settings: Settings
    model: BirdModel
    train: LabelledFolder
    test: LabelledFolder | None
    loss: Loss
    choice: Choice
    """Where the network is divided."""
    cache: Path | None
    """Folder of the features; None: none are kept."""
    dropouts: tuple[Dropout, ...]
    """Those that act in training."""
    trained_weights: int
    """How many numbers are trained."""
    ranks: int
    threads: int
    """Per rank."""
    epochs_done: int
    """0, or those before a resume."""
    batches_done: int
    """Of the next epoch, before a resume."""
    time_s: float
    """Spent on them."""
    command: Command
    """The one that trains."""
    log: str | None
    """The record in the logs of the run that is resumed."""
    precision: str = ""
    """In which precision, with a reason where it is another one than the config asks for; empty: float32."""


class TrainingAudience(Listener, Protocol):
    """Lines and progress, the facts first, then batches and epochs."""

    def begin(self, facts: Facts) -> str | None:
        """Gives the record by which a run that is resumed finds its logs; None where there are none."""
