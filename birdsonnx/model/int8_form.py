"""An int8 model and the float32 model that it was made of: which of them lie beside each other, and whether
they still belong together, since training writes over a checkpoint of the same epoch."""

from pathlib import Path
from typing import Any

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.model import metadata_values
from birdsonnx.model.checkpoint_names import INT8_SUFFIX, has_checkpoint, newest_checkpoint
from birdsonnx.model.metadata_props import PREFIX, read_metadata_prop

SOURCE = "source_sha256"
"""Key of the record `birdsonnx.quantization`: the SHA-256 of the file that was quantised."""


def of(model: Path) -> Path:
    """Where the int8 form of a float32 model lies, if it has one."""
    return model.with_suffix(INT8_SUFFIX)


def source_beside(path: Path) -> Path | None:
    """The float32 model beside an int8 one, by its name; None where there is none."""
    if not path.name.endswith(INT8_SUFFIX):
        return None
    source = path.with_name(path.name.removesuffix(INT8_SUFFIX) + ".onnx")
    return source if source.is_file() else None


def misfit(path: Path, source: Path) -> str:
    """Why an int8 model is not that of a float32 model as it is now, as the end of a sentence about it; empty
    where it is.

    One of an older version, which does not say what it was made of, has to share the number of the training
    and each figure of its history.
    """
    try:
        record = _read(path, "quantization") or {}
        if SOURCE in record:
            same = record[SOURCE] == artifacts.sha256(source)
            return "" if same else f"was made of another model than {source.name} beside it is now"
        if all(_read(path, key) == _read(source, key) is not None for key in ("run", "history")):
            return ""
    except (OSError, ValueError):  # truncated, or of another kind
        return f"or {source.name} beside it cannot be read"
    return f"does not say that it was made of {source.name} beside it"


def newest_in(folder: Path) -> Path:
    """The int8 form of a folder's newest checkpoint, so that both precisions mean the same model; where only
    int8 models are left there, the newest of them.

    Raises:
        ModelError: there is none, or it is that of another model.
    """
    if not has_checkpoint(folder):
        return newest_checkpoint(folder, int8=True)
    newest = newest_checkpoint(folder)
    path, mend = of(newest), f"birdsonnx quantize {newest} --calibrate PHOTOS"
    if not path.is_file():
        raise ModelError(f"{newest}, the newest checkpoint, has no {path.name} beside it; make one: {mend}")
    why = misfit(path, newest)
    if why:
        raise ModelError(f"{path} {why}; make it anew: {mend}, or name it with --model")
    return path


def _read(path: Path, key: str) -> Any:
    text = read_metadata_prop(path, PREFIX + key)
    return None if text is None else metadata_values.value_of(key, text)
