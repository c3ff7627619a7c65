"""What checkpoints and their int8 forms are called, and which one in a folder is the newest."""

from pathlib import Path

from birdsonnx.errors import ModelError
from birdsonnx.model import metadata_values
from birdsonnx.model.metadata_props import PREFIX, read_metadata_prop

HOW_TO_QUANTIZE = "make one first: birdsonnx quantize MODEL --calibrate PHOTOS"

INT8_SUFFIX = ".int8.onnx"


def newest_checkpoint(folder: Path, int8: bool = False) -> Path:
    """The newest `model_checkpoint_*.onnx` of a folder, by the run and epoch in its own metadata; of the
    float32 ones, or of their int8 forms (`*.int8.onnx`).

    Raises:
        ModelError: no readable checkpoint there.
    """
    found = []
    for path in sorted(folder.glob("model_checkpoint_*.onnx")):
        if path.name.endswith(INT8_SUFFIX) != int8:
            continue
        run = run_record(path)
        if run is not None:
            found.append((run["run"], run["epoch"], path))
    if not found:
        if int8:
            raise ModelError(f"{folder}: no *{INT8_SUFFIX} there; {HOW_TO_QUANTIZE}")
        raise ModelError(f"{folder}: no model_checkpoint_*.onnx there; train first, or name a model")
    return max(found)[2]


def run_record(path: Path) -> dict[str, int] | None:
    """Which training wrote a checkpoint, or None where the file does not say."""
    try:
        text = read_metadata_prop(path, PREFIX + "run") if path.is_file() else None
        return None if text is None else dict(metadata_values.value_of("run", text))
    except (OSError, ValueError):  # truncated, or of another kind: not a checkpoint of ours
        return None
