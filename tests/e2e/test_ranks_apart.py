"""Ranks that are not alike, ranks that hang, and words that nobody knows: said once, on rank 0."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import MPIRUN, birdsonnx, refused, succeed


def in_own_folders(*words: str) -> "subprocess.CompletedProcess[str]":
    """Two ranks; the second in the folder `other`, as one of another host."""
    program = f'cd "$0"; exec "{sys.executable}" -m birdsonnx "$@"'
    commands = [["bash", "-c", program, folder, *words] for folder in (".", "other")]
    command = [str(MPIRUN), "-np", "1", *commands[0], ":", "-np", "1", *commands[1]]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def two_folders(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config(num_epochs=1)))
    Path("other").mkdir()
    for name in ("data", "model.onnx", "config.json"):
        copy = shutil.copytree if Path(name).is_dir() else shutil.copy
        copy(name, Path("other", name))


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    return line


def test_copies_of_the_same_are_the_same(two_folders):
    done = in_own_folders("train", "config.json")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("config.json", "text in config.json"),
        ("model.onnx", "content in model.onnx"),
        ("data/train/COOT/003.png", "photos in data/train"),
        ("data/valid/COOT/001.png", "photos in data/valid"),
    ],
)
def test_ranks_that_read_something_else_are_noticed_before_training(two_folders, name, what):
    with Path("other", name).open("ab") as file:
        file.write(b"\n")
    line = one_line(in_own_folders("train", "config.json"))
    assert line.startswith("birdsonnx: rank 1 on ")
    assert f"has other {what} than rank 0 on " in line
    assert not Path("saved").exists()
    assert not Path("out_train.txt").exists()


def test_a_photo_that_one_rank_lacks(two_folders):
    Path("other/data/train/COOT/003.png").unlink()
    assert "has other photos in data/train" in one_line(in_own_folders("train", "config.json"))


def test_ranks_with_other_words_are_refused(workspace):
    words = [sys.executable, "-m", "birdsonnx", "predict", "--model", "model.onnx"]
    command = [str(MPIRUN), "-np", "1", *words, "here", ":", "-np", "1", *words, "there"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "has other words on its command line than rank 0" in one_line(done)


@pytest.mark.parametrize(
    "words", [("train", "--nonsense"), ("nonsense",), ("predict", "--top-k", "none"), ("quantize",)]
)
def test_usage_errors_come_once(words):
    alone, together = birdsonnx(*words), birdsonnx(*words, ranks=3)
    assert together.returncode == alone.returncode == 2
    assert together.stderr == alone.stderr


def test_help_and_version_come_once():
    for words in (("--help",), ("train", "--help"), ("--version",)):
        assert succeed(*words, ranks=3) == succeed(*words)


IMPATIENT = """
import os, sys
from pathlib import Path
from birdsonnx.runtime import waiting
waiting.PATIENCE_S = waiting.ANSWERS_S = 0.5
from birdsonnx.cli.app import main
from birdsonnx.runtime.ranks import import_mpi
Path(f"process_{import_mpi().COMM_WORLD.Get_rank()}").write_text(str(os.getpid()))
sys.argv = ["birdsonnx", *sys.argv[1:]]
main()
"""


def stopped(rank: int, *words: str) -> "tuple[subprocess.Popen[str], int]":
    """Three ranks that train, one of them stopped; the number of its process."""
    command = [str(MPIRUN), "-np", "3", sys.executable, "-c", IMPATIENT, "train", "config.json", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch 2/"))
    number = int(Path(f"process_{rank}").read_text())
    os.kill(number, signal.SIGSTOP)
    return process, number


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_is_waited_for_is_named_and_the_limit_ends_the_run(workspace, training_config, rank):
    Path("config.json").write_text(
        json.dumps(training_config(num_epochs=100_000, birdsonnx={"rank_timeout": 3}))
    )
    process, _ = stopped(rank)
    started = time.perf_counter()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert time.perf_counter() - started < 15
    lines = [line for line in said.splitlines() if line.startswith("birdsonnx")]
    assert any(line.startswith(f"birdsonnx: waiting for rank {rank} for ") for line in lines)
    assert f"rank {rank} did not come within 3 s (birdsonnx.rank_timeout)" in lines[-1]


def test_a_rank_that_goes_on_is_forgiven(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config(num_epochs=60)))
    process, number = stopped(1)
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("birdsonnx"))
    assert line.startswith("birdsonnx: waiting for rank 1 for ")
    os.kill(number, signal.SIGCONT)
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_who_waits_for_rank_0_s_own_work_is_quiet(workspace):
    """Of verbs that only rank 0 carries out."""
    slow = IMPATIENT.replace(
        "sys.argv =",
        "from birdsonnx.inference import quantizing\n"
        "import time\n"
        "real = quantizing.quantize\n"
        "quantizing.quantize = lambda *words: (time.sleep(2), real(*words))[1]\n"
        "sys.argv =",
    )
    command = [str(MPIRUN), "-np", "2", sys.executable, "-c", slow]
    command += ["quantize", "model.onnx", "--calibrate", "data/train"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_limit_must_be_a_time(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config(birdsonnx={"rank_timeout": 0})))
    assert "neural_network.birdsonnx.rank_timeout" in refused("train", "config.json")
