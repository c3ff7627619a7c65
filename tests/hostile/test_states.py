"""State files with anything in them: the run goes on from an older checkpoint, or ends in one line."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from birdsonnx import artifacts
from birdsonnx.config.optimizers import Adam
from birdsonnx.errors import TrainingError
from birdsonnx.model.model_file import BirdModel
from birdsonnx.training import checkpoints
from birdsonnx.training.optimizers import build
from birdsonnx.training.parameters import FlatWeights
from tests.tiny import tiny_model

FOLDER = Path("saved")
FACTS = {"epoch": 2, "run": 1, "steps": 9, "time_s": 1.0, "settings": {}}


def save(epoch: int) -> Path:
    model = tiny_model()
    model = BirdModel(model.proto, model.metadata.having(run={"run": 1, "epoch": epoch}), "m")
    optimizer = build(Adam(), FlatWeights({"dense/bias": np.zeros(5, np.float32)}))
    return checkpoints.save(FOLDER, model, optimizer, 1.5, {})


def bomb(path: Path) -> None:
    """A header that announces 4 TB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("gradient_sum.npy", header.getvalue())


CASES = {
    "time": {"time_s": "soon"},
    "no time": {"time_s": float("nan")},
    "steps": {"steps": [1]},
    "many steps": {"steps": 1e400},
    "epoch": {"epoch": "2"},
    "no epoch": {"epoch": 0},
    "run": {"run": None},
    "settings": {"settings": [1]},
    "photos": {"settings": {"photos": 7}},
    "no photos": {"settings": {"photos": []}},
    "photos by name": {"settings": {"photos": {"a": 1}}},
    "boundary": {"settings": {"boundary": 7}},
    "hash": {"model_sha256": 7},
    "more": {"surprise": 1},
    "another epoch": {"epoch": 3},
}


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_facts_that_are_none(change):
    save(1)
    path = save(2)
    facts = {**FACTS, "model_sha256": artifacts.sha256(path), **change}
    np.savez(checkpoints.state_path(path), facts=np.array(json.dumps(facts)), m=np.zeros(5, np.float32))
    assert checkpoints.newest(FOLDER)[1].epoch == 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5),
        np.zeros(5, np.int64),
        np.array(["a"] * 5),
        np.array([None] * 5, object),
        np.full(5, np.nan, np.float32),
    ],
)
def test_arrays_that_are_none(array):
    save(1)
    path = save(2)
    facts = np.array(json.dumps({**FACTS, "model_sha256": artifacts.sha256(path)}))
    np.savez(checkpoints.state_path(path), facts=facts, gradient_sum=array, square_sum=array)
    assert checkpoints.newest(FOLDER)[1].epoch == 1


@pytest.mark.parametrize("facts", [np.zeros(3), np.array("[" * 100_000), np.array("NaN"), np.array("[]")])
def test_facts_of_another_kind(facts):
    save(1)
    np.savez(checkpoints.state_path(save(2)), facts=facts)
    assert checkpoints.newest(FOLDER)[1].epoch == 1


def test_a_header_that_announces_more_than_there_is():
    save(1)
    path = save(2)
    facts = np.array(json.dumps({**FACTS, "model_sha256": artifacts.sha256(path)}))
    np.savez(checkpoints.state_path(path), facts=facts)
    bomb(checkpoints.state_path(path))
    assert checkpoints.newest(FOLDER)[1].epoch == 1


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_arrays_whose_damage_zipfile_does_not_report_as_its_own(method):
    save(1)
    path = checkpoints.state_path(save(2))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    spoiled = bytearray(path.read_bytes())
    spoiled[50:90] = b"U" * 40
    path.write_bytes(spoiled)
    assert checkpoints.newest(FOLDER)[1].epoch == 1


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_state_that_is_no_file(kind):
    save(1)
    path = checkpoints.state_path(save(2))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert checkpoints.newest(FOLDER)[1].epoch == 1


def test_no_state_at_all():
    save(1)
    checkpoints.state_path(FOLDER / "model_checkpoint_1.onnx").write_bytes(b"PK\x03\x04")
    with pytest.raises(TrainingError, match="no checkpoint to resume from"):
        checkpoints.newest(FOLDER)
