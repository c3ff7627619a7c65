"""Everything that birdsonnx refuses, as one tree. The command line prints the message and exits 2.

    BirdsonnxError
    ├── ConfigError          the JSON config or the command line
    ├── DataError            folders, labels, input lists
    │   └── UnlabelledError      predictions of which nobody says what is right
    ├── ImageError           one photo; prediction skips it, training refuses the whole list
    ├── ModelError           an .onnx, .h5, .keras or layers.json that cannot be used
    │   └── EngineError      an engine that is not there or cannot run this network; another may
    ├── ArtifactError        an output that cannot be written
    ├── InstallationError    a missing extra, a foreign mpirun, a platform without training
    ├── RankError            an MPI rank that does not come, or has other inputs
    └── TrainingError        a run that cannot go on: a loss that is not finite, another run's state

A message is one line: what, where, what to do. A list may follow it, one thing a line.
"""

import traceback
from collections.abc import Iterator, Sequence
from typing import Any


class BirdsonnxError(Exception):
    """Base of all refusals.

    Attributes:
        agreed: every MPI rank raises the same error, so rank 0 speaks for all and each rank leaves
            normally; an error that is not agreed aborts the other ranks.
        lines: the message, and what it lists. Only these are lines: a file name in one of them may hold
            whatever it likes.
        origin: the lines of the traceback, of an error that came from another process, which leaves that
            itself behind; else none.
    """

    agreed: bool = False
    origin: tuple[str, ...] = ()

    def __init__(self, message: str = "", listed: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(listed))
        self.lines = (message, *(f"  {each}" for each in listed))

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**self.__dict__, "origin": tuple(traceback_of(self))}
        return type(self), self.args, state


def traceback_of(error: BaseException) -> Iterator[str]:
    """The lines of the traceback of an error and of those that led to it, each message one line."""
    if isinstance(error, BirdsonnxError) and error.origin:
        yield from error.origin
        return
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from traceback_of(earlier)
    for piece in ("Traceback (most recent call last):", *traceback.format_tb(error.__traceback__)):
        yield from piece.splitlines()
    yield f"{type(error).__name__}: {error}"


class ConfigError(BirdsonnxError):
    """The config or the command line asks for something that does not exist."""


class DataError(BirdsonnxError):
    """Folders, labels or inputs that do not fit together."""


class UnlabelledError(DataError):
    """Predictions that cannot be compared with right classes, only looked through."""


class ImageError(BirdsonnxError):
    """One photo that cannot become a sample."""


class ModelError(BirdsonnxError):
    """A model file that is missing, foreign, broken or unfit for the request."""


class EngineError(ModelError):
    """An engine that is not installed, or cannot run a network that another engine may run."""


class ArtifactError(BirdsonnxError):
    """An output file that could not be written; the old one, if any, is intact."""


class InstallationError(BirdsonnxError):
    """This installation or launcher cannot do what was asked."""


class RankError(BirdsonnxError):
    """A rank that does not come where the others wait, or that has other inputs than rank 0."""


class TrainingError(BirdsonnxError):
    """Training cannot start or go on."""
