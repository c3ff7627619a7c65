"""What a file is that was given for a model and is none, and what to do with it: one line, with a command
that works.

Files are known by their content, not by their names; nothing of them is run.
"""

import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path

from birdsonnx.artifacts.regular_files import opener

HDF5 = b"\x89HDF\r\n\x1a\n"
ONNX = b"\x08"
"""An `.onnx` begins with the tag of its IR version."""
PICKLED = b"\x80"
"""As PyTorch wrote files before they were zips."""
MAY_BE = {"keras": ("damaged",), "predictions": ("damaged", "empty", "hdf5")}
"""Kinds that may be what is wanted all the same: other programs' predictions have no marks."""
LOOKED_AT = 2**16
"""Bytes of a text that are searched for what it describes."""


def what_to_do(path: Path, wanted: str = "onnx") -> str | None:
    """What a file is, and what to do with it, in words that follow its name and a colon; None where it may be
    what is wanted, or nothing is known of it.

    Args:
        path: a file.
        wanted: `onnx` (a model of ours), `keras` (a full model) or `predictions`.
    """
    try:
        kind = _kind(path)
    except OSError:
        return None
    if kind is None or kind == wanted or kind in MAY_BE.get(wanted, ()):
        return None
    return _advice(path, wanted)[kind]


def _advice(path: Path, wanted: str) -> Mapping[str, str]:
    """What to say, by the kind of a file."""
    file, stem = shlex.quote(str(path)), path.with_suffix("")
    onnx = path.with_suffix(".onnx")
    beside = f"; {onnx} is beside it" if onnx != path and onnx.is_file() else ""
    return {
        "empty": "the file is empty",
        "onnx": "a model, not predictions; photos tell how right it is: birdsonnx evaluate PHOTOS --model "
        f"{file}"
        if wanted == "predictions"
        else f"an ONNX file already; the way back to Keras is birdsonnx export --to keras {file}",
        "keras": f"a Keras model; convert it first: birdsonnx export {file} -o {shlex.quote(f'{stem}.onnx')}",
        "weights": "Keras weights without their network; give the network too, as the JSON that Keras' "
        f"to_json() writes: birdsonnx export --layers layers.json {file}; or its name in "
        f"keras.applications: birdsonnx export --arch resnet50 --weights {file}",
        "predictions": f"predictions, not a model; how right they are says birdsonnx evaluate {file}",
        "damaged": "a damaged HDF5 or zip file, no ONNX file; get it again",
        "hdf5": "an HDF5 file, but neither a Keras model nor Keras weights nor predictions",
        "pytorch": f"a PyTorch file, which birdsonnx does not read; it takes an .onnx of its own or a Keras "
        f"model{beside}",
        "arrays": f"NumPy arrays, not a model; --resume reads them beside a checkpoint{beside}"
        if path.name.endswith(".state.npz")
        else "NumPy arrays, not a model",
        "network": "a network without its weights; give them too: birdsonnx export --layers "
        f"{file} WEIGHTS.h5, or --weights none for fresh ones",
        "config": f"a config, not a model; birdsonnx train {file} carries out what it says",
    }


def _kind(path: Path) -> str | None:
    """Raises OSError."""
    with open(path, "rb", opener=opener) as file:
        start = file.read(LOOKED_AT)
    if not start:
        return "empty"
    if start.startswith(HDF5):
        return _kind_of_hdf5(path)
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    if start.startswith(PICKLED) or path.suffix.lower() in (".pt", ".pth"):
        return "pytorch"
    if start.startswith(ONNX):
        return "onnx"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"{", b"[")):
        if b'"neural_network"' in start:
            return "config"
        return "network" if b'"class_name"' in start or b'"layers"' in start else None
    return None


def _kind_of_hdf5(path: Path) -> str | None:
    """By the names of its attributes and groups alone."""
    import h5py  # not at the top: an .onnx is opened without it

    try:
        with h5py.File(path, "r") as file:
            attributes, groups = set(file.attrs), set(file)
    except (OSError, RuntimeError, ValueError):
        return "damaged"
    if {"photos", "refused"} <= attributes:
        return "predictions"
    if "model_config" in attributes:
        return "keras"
    weights = {"layer_names", "layer_names0"} & attributes or {"layers", "vars"} <= groups
    if weights or "model_weights" in groups:  # the group of a whole model, whose config is gone
        return "weights"
    return "hdf5"


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return "damaged"
    if "config.json" in names:
        return "keras"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "pytorch"
    return "arrays" if names and all(name.endswith(".npy") for name in names) else None
