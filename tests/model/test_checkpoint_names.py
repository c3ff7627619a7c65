"""Which checkpoint of a folder is the newest."""

import os
from pathlib import Path

import pytest

from birdsonnx.errors import ModelError
from birdsonnx.model.checkpoint_names import newest_checkpoint, run_record
from birdsonnx.model.model_file import BirdModel
from tests.tiny import tiny_model


def checkpoint(name: str, run: int, epoch: int, modified: float) -> None:
    model = tiny_model(2, size=16)
    metadata = model.metadata.having(run={"run": run, "epoch": epoch})
    path = Path("saved") / name
    BirdModel(model.proto, metadata, name).save(path)
    os.utime(path, (modified, modified))


def test_the_newest_checkpoint_is_the_last_epoch_of_the_last_run():
    checkpoint("model_checkpoint_9.onnx", 1, 9, modified=4000)
    checkpoint("model_checkpoint_2.onnx", 2, 2, modified=3000)
    checkpoint("model_checkpoint_10.onnx", 2, 10, modified=2000)
    checkpoint("other.onnx", 3, 1, modified=5000)
    Path("saved/model_checkpoint_50.onnx").write_bytes(b"truncated")
    tiny_model().save(Path("saved/model_checkpoint_60.onnx"))
    assert newest_checkpoint(Path("saved")) == Path("saved/model_checkpoint_10.onnx")
    assert run_record(Path("saved/model_checkpoint_10.onnx")) == {"run": 2, "epoch": 10}
    for number in (50, 60, 70):
        assert run_record(Path(f"saved/model_checkpoint_{number}.onnx")) is None


def test_no_checkpoint_is_an_error():
    for make in (lambda: None, lambda: Path("saved").mkdir()):
        make()
        with pytest.raises(ModelError, match="saved: no model_checkpoint_"):
            newest_checkpoint(Path("saved"))
