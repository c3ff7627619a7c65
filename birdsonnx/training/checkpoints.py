"""`model_checkpoint_<epoch>.onnx`, a complete model each, and what resuming needs beside it.

The state is written first and holds the hash of the model it belongs to: after a kill at any moment the
newest pair that fits together is where the run goes on.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from birdsonnx import artifacts
from birdsonnx.config.json_text import decoded
from birdsonnx.errors import TrainingError
from birdsonnx.model.checkpoint_names import run_record
from birdsonnx.model.model_file import BirdModel, parse
from birdsonnx.training.optimizers import Optimizer

BEST = "model_best.onnx"


@dataclass(frozen=True)
class State:
    """What resuming needs beside the weights. Shuffle and schedule follow from the epoch and the config."""

    epoch: int
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
    return model.with_suffix(".state.npz")


def next_run(folder: Path) -> int:
    """One more than any training that left checkpoints in the folder."""
    runs = [run_record(path) for path in folder.glob("model_checkpoint_*.onnx")]
    return 1 + max((run["run"] for run in runs if run), default=0)


def save(
    folder: Path, model: BirdModel, optimizer: Optimizer, time_s: float, settings: dict[str, Any]
) -> Path:
    """Write the state, then the model, each whole or not at all. Raises ArtifactError."""
    run = model.metadata.run
    assert run is not None
    path = model_path(folder, run["epoch"])
    content = model.serialized()
    facts = {
        **run,
        "model_sha256": artifacts.sha256_of(content),
        "steps": optimizer.steps,
        "time_s": time_s,
        "settings": settings,
    }
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts, allow_nan=False)), **optimizer.state}
    with artifacts.replacing(state_path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    artifacts.write_bytes(path, content)
    return path


def save_best(folder: Path, model: BirdModel) -> Path:
    """Keep the model with the lowest test loss so far as `model_best.onnx`. Raises ArtifactError."""
    path = folder / BEST
    model.save(path)
    return path


def newest(folder: Path) -> tuple[BirdModel, State]:
    """The newest checkpoint whose state belongs to it.

    Of the others only the states' facts are read: a ResNet50 and Adam's arrays are 290 MB per checkpoint.

    Raises:
        TrainingError: there is none.
    """
    known = [(path, facts) for path in folder.glob("model_checkpoint_*.onnx") if (facts := _facts(path))]
    for path, facts in sorted(known, key=lambda each: (each[1].run, each[1].epoch), reverse=True):
        found = _pair(path, facts)
        if found is not None:
            return found
    raise TrainingError(f"{folder}: no checkpoint to resume from; run without --resume")


class _Facts(BaseModel):
    """What a state file says beside its arrays."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    epoch: Annotated[int, Field(ge=1)]
    run: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=0)]
    time_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    settings: dict[str, Any]
    model_sha256: str


DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile)
"""What NumPy, zipfile and pydantic raise over damaged files (NotImplementedError is a RuntimeError)."""


def _facts(model: Path) -> _Facts | None:
    """Those of the state beside a model; None where there is no state, or a damaged one."""
    try:
        text = str(_read(state_path(model), ["facts"])["facts"])
        decoded(text)
        return _Facts.model_validate_json(text)
    except DAMAGED:
        return None


def _pair(path: Path, facts: _Facts) -> tuple[BirdModel, State] | None:
    """A model and its state; None where they do not belong together, or one of them is damaged."""
    try:
        content = path.read_bytes()
        if artifacts.sha256_of(content) != facts.model_sha256:
            return None  # killed between the two files: the older pair counts
        arrays = _read(state_path(path))
        del arrays["facts"]
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
            return None
    except DAMAGED:
        return None
    model = parse(content, str(path))
    if model.metadata.run != {"run": facts.run, "epoch": facts.epoch}:
        return None
    state = State(facts.epoch, facts.run, facts.steps, facts.time_s, arrays, facts.settings)
    return model, state


def _read(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Some arrays of a `.npz` that `save` wrote, or all. Raises one of `DAMAGED`."""
    if not zipfile.is_zipfile(path):  # NumPy would leave one open that begins like one
        raise ValueError("no .npz")
    with np.load(path, allow_pickle=False) as file:
        stored = path.stat().st_size
        if any(each.file_size > stored for each in file.zip.infolist()):  # ours are not compressed
            raise ValueError("an array is larger than the file")
        return {name: file[name] for name in (file.files if names is None else names)}
