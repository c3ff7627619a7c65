"""`model_checkpoint_<epoch>.onnx`, a complete model each, and what resuming needs beside it.

The state is written first and holds the hash of the model it belongs to: after a kill at any moment the
newest pair that fits together is where the run goes on.
"""

import io
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
from birdsonnx.model.model_file import BirdModel, load
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
    return 1 + max((int(run.get("run", 0)) for run in runs if run), default=0)


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
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts)), **optimizer.state}
    np.savez(buffer, **arrays)
    artifacts.write_bytes(state_path(path), buffer.getvalue())
    artifacts.write_bytes(path, content)
    return path


def save_best(folder: Path, model: BirdModel) -> Path:
    """Keep the model with the lowest test loss so far as `model_best.onnx`. Raises ArtifactError."""
    path = folder / BEST
    model.save(path)
    return path


def newest(folder: Path) -> tuple[BirdModel, State]:
    """The newest checkpoint whose state belongs to it.

    Raises:
        TrainingError: there is none.
    """
    found = []
    for path in folder.glob("model_checkpoint_*.onnx"):
        state = _load_state(path)
        if state is not None:
            found.append((state.run, state.epoch, path, state))
    if not found:
        raise TrainingError(f"{folder}: no checkpoint to resume from; run without --resume")
    _, _, path, state = max(found, key=lambda entry: entry[:2])
    return load(path), state


def _load_state(path: Path) -> State | None:
    try:
        with np.load(state_path(path), allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            if facts["model_sha256"] != artifacts.sha256(path):
                return None  # killed between the two files: the older pair counts
            arrays = {name: file[name] for name in file.files if name != "facts"}
            return State(
                facts["epoch"], facts["run"], facts["steps"], facts["time_s"], arrays, facts["settings"]
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile):
        return None  # damaged: NumPy and zipfile raise all of these (NotImplementedError is a RuntimeError)
