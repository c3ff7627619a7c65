"""Two trainings at once into one place: the second is refused; and what a run that died leaves behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from birdsonnx.artifacts import locks
from birdsonnx.errors import ArtifactError
from tests.command import refused, succeed

NEVER_ENDS = {"num_epochs": 100_000, "checkpoints": {"load": "model.onnx", "save": "saved/", "interval": 9}}


@pytest.fixture
def config(workspace, training_config):
    def write(name: str = "config.json", **sections) -> str:
        Path(name).write_text(json.dumps(training_config(**sections)))
        return name

    return write


@pytest.fixture
def running(config) -> Iterator["subprocess.Popen[str]"]:
    """A training in its first epochs."""
    command = [sys.executable, "-m", "birdsonnx", "train", config("first.json", **NEVER_ENDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch 1/"))
        yield process
        process.kill()


def files(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_second_run_into_the_folder_is_refused(running, config, ranks):
    (Path.cwd() / "link").symlink_to("saved")
    for save in ("saved", "link"):
        line = refused("train", config(outfile="other.txt"), "--set", f"checkpoints.save={save}", ranks=ranks)
        assert (
            f"{save}: another run writes there now (process {running.pid} on {socket.gethostname()})" in line
        )
    assert running.poll() is None
    assert not Path("other_train.txt").exists()


def test_a_second_run_with_the_same_outfile_gets_logs_of_its_own(running, config):
    text = succeed("train", config(num_epochs=1), "--set", "checkpoints.save=elsewhere")
    assert "writing out_2_train.txt and out_2_test.txt, since another run writes out_train.txt now" in text
    line = refused("train", config(num_epochs=1), "--set", "checkpoints.save=elsewhere", "--overwrite")
    assert "out_train.txt: another run writes there now" in line


def test_the_lock_of_a_dead_run_is_no_obstacle_and_goes(running, config):
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert ".birdsonnx.lock" in files("saved")
    succeed("train", config(num_epochs=1))
    assert not [path for path in Path().rglob(".*") if path.suffix in (".lock", ".tmp")]


def test_a_lock_of_another_run_is_left_alone(tmp_path):
    """Of one that writes in a new folder of the name, since the first was removed."""
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(locks.sole_writer_in(Path("saved"), print))
    shutil.rmtree("saved")
    second.enter_context(locks.sole_writer_in(Path("saved"), print))
    first.close()
    with pytest.raises(ArtifactError, match="another run"), locks.sole_writer_in(Path("saved"), print):
        pass
    second.close()
    assert not Path("saved").exists()


KILLED_AT = """
import os, signal, sys
from birdsonnx import artifacts
from birdsonnx.cli.app import main
write = artifacts.write_bytes
def killed(target, content):
    if target.suffix == ".onnx":
        {before}
        os.kill(os.getpid(), signal.SIGKILL)
    write(target, content)
artifacts.write_bytes = killed
sys.argv = ["birdsonnx", "train", "config.json"]
main()
"""


@pytest.mark.parametrize("before", ["pass", "write(target, content)"], ids=["before", "after"])
def test_a_run_that_dies_between_the_two_files_leaves_the_older_pair_or_its_own(config, before):
    config(num_epochs=1)
    succeed("train", "config.json")
    old = {path.name: path.read_bytes() for path in Path("saved").iterdir()}
    Path("killed.py").write_text(KILLED_AT.format(before=before))
    done = subprocess.run([sys.executable, "killed.py"], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    if before == "pass":
        assert {name: Path("saved", name).read_bytes() for name in old} == old
    text = succeed("train", "config.json", "--resume", "--set", "num_epochs=2")
    assert "resuming after epoch 1 from saved/model_checkpoint_1.onnx" in text
    run = 1 if before == "pass" else 2
    assert f'"run": {run}'.encode() in Path("saved/model_checkpoint_2.onnx").read_bytes()
    assert files("saved") == [
        f"model_checkpoint_{epoch}{suffix}" for epoch in (1, 2) for suffix in (".onnx", ".state.npz")
    ]


@pytest.mark.parametrize("key", ["checkpoints.save", "data.test_output_path"])
def test_a_place_that_cannot_be_written_is_found_before_the_first_epoch(config, key):
    Path("file").write_text("x")
    for ranks in (1, 2):
        line = refused("train", config(), "--set", f"{key}=file/results", ranks=ranks)
        assert "cannot write into file/results: Not a directory" in line
    assert not Path("saved").exists()
    assert not Path("out_train.txt").exists()
