"""A model file's bytes, or one line about why there are none."""

from pathlib import Path

from birdsonnx.artifacts import regular_files
from birdsonnx.errors import ModelError
from birdsonnx.model import foreign_files


def read_bytes(path: Path) -> bytes:
    """The content of a file that is to be an `.onnx`. Raises ModelError where it cannot be read, or is of
    another kind, such as Keras' own."""
    try:
        content = regular_files.read_bytes(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such model") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if not content.startswith(foreign_files.ONNX):
        refusal = foreign_files.what_to_do(path)
        if refusal is not None:
            raise ModelError(f"{path}: {refusal}")
    return content
