"""`model_checkpoint_<epoch>.onnx`, a complete model each, and what resuming needs beside it.

A run that is asked to stop within an epoch leaves `model_interrupted.onnx`, which is like them.

The state holds the hash of the model it belongs to. It is written first, under a name of its own, and takes
the place of the older state only once its model has taken the place of the older model: after a kill at any
moment each model has its state, and the newest pair is where the run goes on.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from birdsonnx import artifacts
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.config.json_text import decoded
from birdsonnx.errors import BirdsonnxError, ModelError, TrainingError
from birdsonnx.model.checkpoint_names import run_record
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.model_file import BirdModel, parse
from birdsonnx.training.epochs import NOT_BEGUN, Begun
from birdsonnx.training.optimizers import Optimizer

BEST = "model_best.onnx"
INTERRUPTED = "model_interrupted.onnx"
STATE, NEXT_STATE = ".state.npz", ".next.state.npz"
"""Suffixes of a state: the model's, and that of the model which is about to take its place."""


@dataclass(frozen=True)
class State:
    """What resuming needs beside the weights. Shuffle and schedule follow from the epoch and the config."""

    epoch: int
    """The last whole one."""
    begun: Begun
    """What was done of the next."""
    run: int
    steps: int
    """Optimizer steps done."""
    time_s: float
    """Time spent training until then."""
    arrays: Mapping[str, npt.NDArray[np.float32]]
    """The optimizer's."""
    settings: dict[str, Any]
    """Of the run: resuming with others would be another run."""


def model_path(folder: Path, epoch: int) -> Path:
    return folder / f"model_checkpoint_{epoch}.onnx"


def state_path(model: Path) -> Path:
    return model.with_suffix(STATE)


def _all_in(folder: Path) -> Iterator[Path]:
    """Models that a run may go on from."""
    yield from folder.glob("model_checkpoint_*.onnx")
    yield from folder.glob(INTERRUPTED)


def next_run(folder: Path) -> int:
    """One more than any training that left checkpoints in the folder."""
    runs = [run_record(path) for path in _all_in(folder)]
    return 1 + max((run["run"] for run in runs if run), default=0)


def replaced_by(folder: Path, epochs: int, interval: int) -> list[str]:
    """Names of the checkpoints in the folder that a run of so many epochs, which keeps one each `interval`,
    writes anew."""
    numbers = {*range(interval, epochs + 1, interval), epochs}
    return [path.name for path in (model_path(folder, each) for each in sorted(numbers)) if path.exists()]


def save(
    folder: Path,
    model: BirdModel,
    optimizer: Optimizer,
    time_s: float,
    settings: dict[str, Any],
    begun: Begun = NOT_BEGUN,
) -> Path:
    """Write a model and its state, the pair whole or not at all; where steps of a next epoch are in it, as
    `model_interrupted.onnx`, which goes when a later checkpoint is there. Raises ArtifactError."""
    run = model.metadata.run
    assert run is not None
    path = folder / INTERRUPTED if begun.steps else model_path(folder, run["epoch"])
    content = model.serialized()
    facts = {
        "run": run["run"],
        "epoch": run["epoch"],
        "model_sha256": artifacts.sha256_of(content),
        "steps": optimizer.steps,
        "begun": asdict(begun),
        "time_s": time_s,
        "settings": settings,
    }
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts, allow_nan=False)), **optimizer.kept()}
    coming = path.with_suffix(NEXT_STATE)
    try:
        with artifacts.replacing(coming) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        artifacts.write_bytes(path, content)
    except BaseException:
        settle(folder)
        raise
    with artifacts.naming(state_path(path)):
        coming.replace(state_path(path))
        if not begun.steps:
            for older in (folder / INTERRUPTED, state_path(folder / INTERRUPTED)):
                older.unlink(missing_ok=True)
    return path


def settle(folder: Path) -> None:
    """Finish or take back what a run that ended while it saved had begun. Only the folder's one writer may
    do so. Raises ArtifactError."""
    for coming in folder.glob(f"*{NEXT_STATE}"):
        model = coming.with_name(coming.name.removesuffix(NEXT_STATE) + ".onnx")
        facts = _facts(coming)
        with artifacts.naming(coming):
            if facts is not None and model.is_file() and artifacts.sha256(model) == facts.model_sha256:
                coming.replace(state_path(model))
            else:
                coming.unlink()


def save_best(folder: Path, model: BirdModel) -> Path:
    """Keep the model with the lowest test loss so far as `model_best.onnx`. Raises ArtifactError."""
    path = folder / BEST
    model.save(path)
    return path


def newest(folder: Path, say: Callable[[str], None] = lambda _: None) -> tuple[BirdModel, State]:
    """The newest sound checkpoint whose state belongs to it. `say` takes a line for each that is not, and is
    newer or of no known age.

    Of the others only the states' facts are read: a ResNet50 and Adam's arrays are 290 MB per checkpoint.

    Raises:
        TrainingError: there is none; says why the newest is none.
    """
    known = []
    unfit: list[BirdsonnxError] = []
    of_no_age: list[BirdsonnxError] = []
    for path in sorted(_all_in(folder), reverse=True):
        facts = _facts(state_path(path))
        if facts is not None:
            known.append((path, facts))
        elif state_path(path).exists():
            of_no_age.append(_damaged(path))
    found = None
    for path, facts in sorted(known, key=lambda each: each[1].age, reverse=True):
        try:
            found = _pair(path, facts)
            break
        except (ModelError, TrainingError) as error:
            unfit.append(error)
    unfit += of_no_age
    if found is None:
        why = f" ({unfit[0]})" if unfit else ""
        raise TrainingError(f"{folder}: no checkpoint to resume from{why}; run without --resume")
    for reason in unfit:
        say(f"passed over: {reason}")
    return found


def _damaged(model: Path) -> TrainingError:
    return TrainingError(f"{state_path(model)}: damaged, or not of birdsonnx")


def log_of(model: Path) -> str | None:
    """The record in the logs of the run that left a checkpoint; None where it kept no logs, or the checkpoint
    has no state beside it that can be read."""
    facts = _facts(state_path(model))
    return None if facts is None else facts.settings.log


class _Settings(BaseModel):
    """Of the run, as far as they are used otherwise than to compare them with the config's."""

    model_config = ConfigDict(strict=True, extra="allow")

    photos: Annotated[list[int | str], Field(min_length=2, max_length=2)] | None = None
    boundary: list[str] | None = None
    log: str | None = None
    computed_by: str | None = None


class _Facts(BaseModel):
    """What a state file says beside its arrays."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    epoch: Annotated[int, Field(ge=0)]
    begun: Begun = NOT_BEGUN
    run: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=0)]
    time_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    settings: _Settings
    model_sha256: str

    @property
    def age(self) -> tuple[int, int, int]:
        """The newest has the largest."""
        return self.run, self.epoch, self.begun.steps


DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile)
"""What NumPy, zipfile and pydantic raise over damaged files (NotImplementedError is a RuntimeError)."""


def _facts(state: Path) -> _Facts | None:
    """Those of a state file; None where there is none, or a damaged one."""
    try:
        text = str(_read(state, ["facts"])["facts"])
        decoded(text)
        return _Facts.model_validate_json(text)
    except DAMAGED:
        return None


def _pair(path: Path, facts: _Facts) -> tuple[BirdModel, State]:
    """A model and its state. Raises ModelError or TrainingError where one of them is damaged, or they do not
    belong together."""
    content = read_bytes(path)
    stopped = {"step": facts.begun.steps} if facts.begun.steps else {}
    model = parse(content, str(path))
    is_its = model.metadata.run == {"run": facts.run, "epoch": facts.epoch, **stopped}
    if not is_its or artifacts.sha256_of(content) != facts.model_sha256:
        raise TrainingError(f"{path}: its {state_path(path).name} is that of another model")
    try:
        arrays = _read(state_path(path))
        del arrays["facts"]
    except DAMAGED:
        raise _damaged(path) from None
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
        raise TrainingError(f"{state_path(path)}: holds what is no finite float32")
    state = State(
        facts.epoch,
        facts.begun,
        facts.run,
        facts.steps,
        facts.time_s,
        arrays,
        facts.settings.model_dump(exclude_unset=True),
    )
    return model, state


def _read(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Some arrays of a `.npz` that `save` wrote, or all. Raises one of `DAMAGED`."""
    with open(path, "rb", opener=opener) as content:
        if not zipfile.is_zipfile(content):  # NumPy would take it for something else
            raise ValueError("no .npz")
        content.seek(0)
        with np.load(content, allow_pickle=False) as file:
            stored = path.stat().st_size
            for each in file.zip.infolist():  # ours are stored as they are
                if each.compress_type != zipfile.ZIP_STORED or each.file_size > stored:
                    raise ValueError("an array is compressed, or larger than the file")
            return {name: file[name] for name in (file.files if names is None else names)}
