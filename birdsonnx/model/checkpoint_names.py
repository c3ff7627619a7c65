"""What checkpoints, their int8 forms and runs are called, and which of them is the newest."""

import re
from collections.abc import Callable
from pathlib import Path

from birdsonnx.errors import ModelError
from birdsonnx.model import metadata_values
from birdsonnx.model.metadata_props import PREFIX, read_metadata_prop

HOW_TO_QUANTIZE = "make one first: birdsonnx quantize MODEL --calibrate PHOTOS"

INT8_SUFFIX = ".int8.onnx"
CALIBRATED_SUFFIX = ".calibrated.onnx"
"""Of a model, float32 or int8, whose probabilities were calibrated."""

CHECKPOINTS = Path("model_checkpoints_save")
"""Where a model is looked for first when none is named: the tutorial's folder."""

RUNS = Path("runs")
"""Of the trainings that were given no config: `train_<N>`, each with its `CHECKPOINTS_OF_RUN`."""
RUN_PREFIX = "train_"
COMPARISON_PREFIX = "compare_"
"""Of the comparisons of architectures in the same folder: each holds a run for each of them."""
CHECKPOINTS_OF_RUN = "checkpoints"


def numbered_runs(prefix: str = RUN_PREFIX) -> dict[int, Path]:
    """The runs in `RUNS` by number, in their order; or what else is numbered there, by its `prefix`."""
    found = {}
    for path in RUNS.glob(f"{prefix}*"):
        number = re.fullmatch(r"[1-9]\d*", path.name.removeprefix(prefix))
        if number is not None and path.is_dir():
            found[int(number[0])] = path
    return dict(sorted(found.items()))


def default_folder(say: Callable[[str], None]) -> Path:
    """The folder of the model that is meant when none is named: `CHECKPOINTS`, or where no checkpoint is in
    it, that of the newest run in `RUNS` that has one. `say` takes a line where there are both.

    Raises:
        ModelError: there is none.
    """
    runs = [run / CHECKPOINTS_OF_RUN for run in reversed(numbered_runs().values())]
    having = [folder for folder in (CHECKPOINTS, *runs) if any(folder.glob("model_checkpoint_*.onnx"))]
    if not having:
        raise ModelError(
            f"{CHECKPOINTS}, {RUNS}: no model_checkpoint_*.onnx there; train first, or name a model"
        )
    if having[0] == CHECKPOINTS != having[-1]:
        say(f"models are in {CHECKPOINTS} and in {having[1]}; the first are meant, --model names another")
    return having[0]


def newest_checkpoint(folder: Path, int8: bool = False) -> Path:
    """The newest `model_checkpoint_*.onnx` of a folder, by the run and epoch in its own metadata; of the
    float32 ones, or of their int8 forms (`*.int8.onnx`). Calibrated ones count where there are no others.

    Raises:
        ModelError: no readable checkpoint there.
    """
    newest = _newest(folder, int8)
    if newest is None:
        if int8:
            raise ModelError(f"{folder}: no *{INT8_SUFFIX} there; {HOW_TO_QUANTIZE}")
        raise ModelError(f"{folder}: no model_checkpoint_*.onnx there; train first, or name a model")
    return newest


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a float32 checkpoint that can be read."""
    return _newest(folder, int8=False) is not None


def _newest(folder: Path, int8: bool) -> Path | None:
    found = []
    for path in folder.glob("model_checkpoint_*.onnx"):
        name = path.name.removesuffix(CALIBRATED_SUFFIX) + ".onnx"
        is_calibrated = path.name.endswith(CALIBRATED_SUFFIX)
        if (name if is_calibrated else path.name).endswith(INT8_SUFFIX) != int8:
            continue
        run = run_record(path)
        if run is not None:
            found.append((not is_calibrated, run["run"], run["epoch"], path))
    return max(found)[3] if found else None


def run_record(path: Path) -> dict[str, int] | None:
    """Which training wrote a checkpoint, or None where the file does not say."""
    try:
        text = read_metadata_prop(path, PREFIX + "run") if path.is_file() else None
        return None if text is None else dict(metadata_values.value_of("run", text))
    except (OSError, ValueError):  # truncated, or of another kind: not a checkpoint of ours
        return None
