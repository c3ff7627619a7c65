"""A calibrated model and the model that it was made of: which of them lie beside each other, and which is
meant where none is named."""

from collections.abc import Callable
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.model import int8_form, metadata_values
from birdsonnx.model.checkpoint_names import CALIBRATED_SUFFIX, has_checkpoint, newest_checkpoint
from birdsonnx.model.metadata_props import PREFIX, read_metadata_prop

Say = Callable[[str], None]

SOURCE = "source_sha256"
"""Key of the record `birdsonnx.calibration`: the SHA-256 of the file that was calibrated."""


def of(model: Path) -> Path:
    """Where the calibrated form of a model lies, if it has one."""
    return model.with_suffix(CALIBRATED_SUFFIX)


def beside(model: Path) -> Path | None:
    """The calibrated form beside a model, where it was made of just this file."""
    path = of(model)
    try:
        text = read_metadata_prop(path, PREFIX + "calibration") if path.is_file() else None
        record = {} if text is None else metadata_values.value_of("calibration", text)
        return path if SOURCE in record and record[SOURCE] == artifacts.sha256(model) else None
    except (OSError, ValueError):  # truncated, or of another kind
        return None


def newest_in(folder: Path, say: Say, int8: bool = False) -> Path:
    """The newest checkpoint of a folder, in its calibrated form where it has one; with `int8`, the int8 form
    of that. `say` takes a line where it is the calibrated one.

    Raises:
        ModelError: there is none, or the int8 form is that of another model.
    """
    if not int8 or not has_checkpoint(folder):
        return _calibrated(newest_checkpoint(folder, int8), say)
    newest = newest_checkpoint(folder)
    calibrated = beside(newest)
    if calibrated is None:
        return _calibrated(int8_form.newest_in(folder), say)
    path, mend = int8_form.of(calibrated), f"birdsonnx quantize {calibrated} --calibrate PHOTOS"
    why = int8_form.misfit(path, calibrated) if path.is_file() else "is not there"
    if not why:
        say(f"model {path}: the int8 form of {calibrated.name} beside it")
        return path
    if not int8_form.of(newest).is_file():
        raise ModelError(f"{path} {why}; make it: {mend}, or name another model with --model")
    path = _calibrated(int8_form.newest_in(folder), say)
    if not path.name.endswith(CALIBRATED_SUFFIX):
        say(f"{path} is not calibrated, as {calibrated} is; to make that one int8: {mend}")
    return path


def _calibrated(model: Path, say: Say) -> Path:
    """A model's calibrated form where there is one, else the model."""
    path = beside(model)
    if path is None:
        return model
    say(f"model {path}: the calibrated form of {model.name} beside it")
    return path
