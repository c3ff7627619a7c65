"""What is said of a file that was given for a model and is none."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.model.foreign_files import what_to_do
from tests.command import refused, succeed_json
from tests.tiny import tiny_model


def hdf5(*groups: str, **attributes: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs.update(attributes)
            for name in groups:
                file.create_group(name)

    return make


def zipped(*names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"{}")

    return make


def text(content: object) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(content)) and None


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.h5", hdf5(model_config="{}"), "a Keras model; convert it first: birdsonnx export a.h5 -o a.onnx"),
        ("a b.h5", hdf5(model_config="{}"), "birdsonnx export 'a b.h5' -o 'a b.onnx'"),
        ("a.keras", zipped("config.json", "model.weights.h5"), "birdsonnx export a.keras -o a.onnx"),
        ("a.h5", hdf5(layer_names=["dense"]), "birdsonnx export --layers layers.json a.h5; or its name"),
        ("a.weights.h5", hdf5("layers", "vars"), "Keras weights without their network"),
        ("output_1.h5", hdf5(photos=3, refused=0), "birdsonnx evaluate output_1.h5"),
        ("a.h5", hdf5("data"), "an HDF5 file, but neither"),
        ("a.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n cut off"), "a damaged HDF5"),
        ("a.zip", lambda path: path.write_bytes(b"PK cut off"), "a damaged HDF5 or zip file"),
        ("a.pt", zipped("a/data.pkl"), "a PyTorch file"),
        ("old.pth", lambda path: path.write_bytes(b"\x80\x02."), "a PyTorch file"),
        ("a.npz", lambda path: np.savez(path, x=np.zeros(1)), "NumPy arrays, not a model"),
        ("m.state.npz", lambda path: np.savez(path, x=np.zeros(1)), "--resume reads them"),
        ("layers.json", text({"class_name": "Sequential"}), "export --layers layers.json WEIGHTS.h5"),
        ("config.json", text({"neural_network": {}}), "birdsonnx train config.json carries out"),
        ("nothing.onnx", lambda path: path.touch(), "the file is empty"),
    ],
)
def test_each_kind_is_known_by_its_content(name, make, said):
    make(Path(name))
    assert said in (what_to_do(Path(name)) or "")
    line = refused("info", name)
    assert line.startswith(f"birdsonnx: {name}: ")
    assert said in line


def test_names_do_not_matter():
    tiny_model(3).save(Path("model.h5"))
    assert succeed_json("info", "model.h5")["parameters"]


def test_a_model_lies_beside_a_pytorch_file():
    zipped("a/data.pkl")(Path("bird.pt"))
    tiny_model(3).save(Path("bird.onnx"))
    assert what_to_do(Path("bird.pt")).endswith("; bird.onnx is beside it")


def test_what_is_wanted_is_not_refused():
    hdf5(model_config="{}")(Path("a.h5"))
    hdf5("data")(Path("b.h5"))
    Path("note.txt").write_text("hello")
    assert what_to_do(Path("a.h5"), "keras") is None
    assert what_to_do(Path("b.h5"), "predictions") is None  # of another program
    assert what_to_do(Path("note.txt")) is None
    assert what_to_do(Path("is not there")) is None


def test_every_verb_says_so():
    hdf5(layer_names=["dense"])(Path("weights.h5"))
    tiny_model(3).save(Path("model.onnx"))
    Path("data").mkdir()
    said = "birdsonnx export --layers layers.json weights.h5"
    assert said in refused("export", "weights.h5")
    assert said in refused("benchmark", "weights.h5")
    assert said in refused("quantize", "weights.h5", "--calibrate", "data")
    assert said in refused("evaluate", "weights.h5")
    assert "--to keras model.onnx" in refused("export", "model.onnx")
    assert "birdsonnx evaluate PHOTOS --model model.onnx" in refused("evaluate", "model.onnx")
