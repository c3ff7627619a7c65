"""Which model is meant where none is named: the newest checkpoint's calibrated form, where it fits."""

from pathlib import Path

import pytest

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.model import calibrated_form, int8_form
from birdsonnx.model.model_file import BirdModel
from tests.tiny import tiny_model


def save(path: Path, epoch: int, of: Path | None = None, int8_of: Path | None = None, seed: int = 0) -> Path:
    changes = {"run": {"run": 1, "epoch": epoch}}
    if of is not None:
        changes["calibration"] = {"temperature": 2.0, "photos": 9, "source_sha256": artifacts.sha256(of)}
    if int8_of is not None:
        changes["quantization"] = {"photos": 9, "source_sha256": artifacts.sha256(int8_of)}
    model = tiny_model(3, seed=seed)
    BirdModel(model.proto, model.metadata.having(**changes), str(path)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    save(tmp_path / "model_checkpoint_1.onnx", 1)
    save(tmp_path / "model_checkpoint_2.onnx", 2)
    return tmp_path


def newest(folder: Path, int8: bool = False) -> tuple[str, list[str]]:
    lines: list[str] = []
    return calibrated_form.newest_in(folder, lines.append, int8).name, lines


def test_none_is_calibrated(folder):
    assert newest(folder) == ("model_checkpoint_2.onnx", [])


def test_that_of_the_newest_is_taken_and_said(folder):
    plain = folder / "model_checkpoint_2.onnx"
    path = save(calibrated_form.of(plain), 2, of=plain)
    assert path.name == "model_checkpoint_2.calibrated.onnx"
    name, [line] = newest(folder)
    assert name == path.name
    assert line == f"model {path}: the calibrated form of model_checkpoint_2.onnx beside it"


def test_stale_and_damaged_ones_are_not(folder):
    plain = folder / "model_checkpoint_2.onnx"
    path = save(calibrated_form.of(plain), 2, of=plain)
    save(plain, 2, seed=1)
    assert newest(folder) == (plain.name, [])
    path.write_bytes(b"no model")
    assert newest(folder) == (plain.name, [])
    path.unlink()
    path.mkdir()
    assert newest(folder) == (plain.name, [])


def test_that_of_an_older_checkpoint_is_not(folder):
    older = folder / "model_checkpoint_1.onnx"
    save(calibrated_form.of(older), 1, of=older)
    assert newest(folder) == ("model_checkpoint_2.onnx", [])


def test_alone_it_is_the_newest(folder):
    plain = folder / "model_checkpoint_2.onnx"
    path = save(calibrated_form.of(plain), 2, of=plain)
    for each in folder.glob("model_checkpoint_?.onnx"):
        each.unlink()
    assert newest(folder) == (path.name, [])


def test_int8_is_that_of_the_calibrated_one(folder):
    plain = folder / "model_checkpoint_2.onnx"
    save(int8_form.of(plain), 2, int8_of=plain)
    assert newest(folder, int8=True) == ("model_checkpoint_2.int8.onnx", [])
    calibrated = save(calibrated_form.of(plain), 2, of=plain)
    name, [line] = newest(folder, int8=True)
    assert name == "model_checkpoint_2.int8.onnx"
    assert "is not calibrated" in line
    save(int8_form.of(calibrated), 2, int8_of=calibrated)
    name, [line] = newest(folder, int8=True)
    assert name == "model_checkpoint_2.calibrated.int8.onnx"
    assert newest(folder)[0] == calibrated.name


def test_an_int8_form_that_was_calibrated_itself(folder):
    plain = folder / "model_checkpoint_2.onnx"
    quantized = save(int8_form.of(plain), 2, int8_of=plain)
    path = save(calibrated_form.of(quantized), 2, of=quantized, int8_of=plain)
    assert newest(folder, int8=True)[0] == path.name == "model_checkpoint_2.int8.calibrated.onnx"
    assert newest(folder) == (plain.name, [])


def test_no_int8_form_of_either_names_the_calibrated_one(folder):
    plain = folder / "model_checkpoint_2.onnx"
    calibrated = save(calibrated_form.of(plain), 2, of=plain)
    with pytest.raises(ModelError, match=f"birdsonnx quantize {calibrated} "):
        newest(folder, int8=True)
