"""A model file's bytes, or one line about why there are none."""

from pathlib import Path

from birdsonnx.artifacts import regular_files
from birdsonnx.errors import ModelError


def read_bytes(path: Path) -> bytes:
    """The content of a file that is to be an `.onnx`. Raises ModelError where it cannot be read, or is Keras'
    own."""
    if path.suffix.lower() in (".h5", ".hdf5", ".keras"):
        raise ModelError(f"{path}: a Keras file; convert it first: birdsonnx export {path} -o model.onnx")
    try:
        return regular_files.read_bytes(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such model") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
