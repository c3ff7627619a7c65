"""`model_checkpoint_<epoch>.onnx`, a complete model each, and what resuming needs beside it.

The state is written first and holds the hash of the model it belongs to: after a kill at any moment the
newest pair that fits together is where the run goes on.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
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
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts)), **optimizer.state}
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


@dataclass(frozen=True)
class _Facts:
    """What a state file says beside its arrays."""

    epoch: int
    run: int
    steps: int
    time_s: float
    settings: dict[str, Any]
    model_sha256: str


DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)
"""What NumPy and zipfile raise over damaged files (NotImplementedError is a RuntimeError)."""


def _facts(model: Path) -> _Facts | None:
    """Those of the state beside a model; None where there is no state, or a damaged one."""
    try:
        with np.load(state_path(model), allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            return _Facts(
                int(facts["epoch"]),
                int(facts["run"]),
                facts["steps"],
                facts["time_s"],
                facts["settings"],
                facts["model_sha256"],
            )
    except DAMAGED:
        return None


def _pair(path: Path, facts: _Facts) -> tuple[BirdModel, State] | None:
    """A model and its state; None where they do not belong together, or one of them is damaged."""
    try:
        content = path.read_bytes()
        if artifacts.sha256_of(content) != facts.model_sha256:
            return None  # killed between the two files: the older pair counts
        with np.load(state_path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "facts"}
    except DAMAGED:
        return None
    state = State(facts.epoch, facts.run, facts.steps, facts.time_s, arrays, facts.settings)
    return parse(content, str(path)), state
