"""A full disk: one clear line, the old file intact, no litter. A limit on the file size stands for it."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.command import succeed
from tests.tiny import make_class_folders


def refused_with_limit(kilobytes: int, *words: str) -> str:
    command = f'ulimit -f {kilobytes}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "birdsonnx", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("per_class", [4, 150])  # too large when the file is closed, and while it grows
def test_predictions(workspace, per_class):
    succeed("predict", "data/valid", "--model", "model.onnx")
    before = Path("predictions/output_1.h5").read_bytes()
    make_class_folders(Path("many"), per_class=per_class)
    line = refused_with_limit(4 if per_class == 4 else 64, "predict", "many", "--model", "model.onnx")
    assert "cannot write predictions/output_1.h5: File too large" in line
    assert "intact" in line
    assert Path("predictions/output_1.h5").read_bytes() == before
    assert [path.name for path in Path("predictions").iterdir()] == ["output_1.h5"]
    with h5py.File("predictions/output_1.h5") as file:
        assert file.attrs["photos"] == 9


def test_checkpoints(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config()))
    line = refused_with_limit(8, "train", "config.json")
    assert "cannot write saved/model_checkpoint_2.onnx: File too large" in line
    assert not [path for path in Path("saved").iterdir() if path.suffix in (".onnx", ".tmp")]
