"""Ctrl-C, SIGTERM and SIGHUP: one line, 128 + the signal's number, no litter, and training is not lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.command import MPIRUN, succeed

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def weights_of(path: str) -> dict[str, bytes]:
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer
    }


def litter() -> list[Path]:
    return [path for path in Path().rglob(".*") if path.suffix in (".tmp", ".lock")]


def start(*words: str, ranks: int = 1, script: str = "") -> "subprocess.Popen[str]":
    """A process whose signals are the defaults, whatever the tests were started with."""
    program = ["-c", script] if script else ["-m", "birdsonnx"]
    command = [sys.executable, *program, *words]
    if ranks > 1:
        command = [str(MPIRUN), "-np", str(ranks), *command]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, restore_signals=True
    )


def wait_for(process: "subprocess.Popen[str]", beginning: str) -> None:
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith(beginning))


@pytest.fixture
def config(workspace, training_config):
    def write(**sections) -> None:
        checkpoints = {"load": "model.onnx", "save": "saved/", "interval": 10_000}
        Path("config.json").write_text(json.dumps(training_config(checkpoints=checkpoints, **sections)))

    return write


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_training_stops_after_the_step_and_resumes_to_the_same_bits(config, number, ranks):
    if ranks > 1 and number == signal.SIGHUP:
        pytest.skip("mpirun itself dies of it, and passes nothing on")
    config(num_epochs=100_000)
    with start("train", "config.json", ranks=ranks) as process:
        wait_for(process, "epoch 3/100000  batch 2/")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    [line] = [line for line in said.splitlines() if "birdsonnx" in line]
    assert "birdsonnx: interrupted in epoch " in line
    command = f"{'mpirun -np 2 ' if ranks == 2 else ''}birdsonnx train config.json --resume"
    assert line.endswith(f"kept in saved/model_interrupted.onnx; to go on: {command}")
    assert not litter()
    assert sorted(path.name for path in Path("saved").iterdir()) == [
        "model_interrupted.onnx",
        "model_interrupted.state.npz",
    ]
    epoch = int(line.split("epoch ")[1].split()[0]) + 1
    config(num_epochs=epoch)
    succeed("train", "config.json", "--resume", ranks=ranks)
    resumed = np.loadtxt("out_train.txt")[:, 1:]
    Path("saved").rename("stopped")
    succeed("train", "config.json", ranks=ranks)
    name = f"model_checkpoint_{epoch}.onnx"
    assert weights_of(f"stopped/{name}") == weights_of(f"saved/{name}")
    assert np.array_equal(resumed, np.loadtxt("out_train.txt")[:, 1:])
    assert {path.name for path in Path("stopped").iterdir()} == {
        path.name for path in Path("saved").iterdir()
    }


def test_without_a_folder_for_checkpoints_it_says_that_nothing_is_kept(config, training_config):
    network = training_config(num_epochs=100_000, checkpoints={"load": "model.onnx"})
    Path("config.json").write_text(json.dumps(network))
    with start("train", "config.json") as process:
        wait_for(process, "epoch 1/")
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.startswith("birdsonnx: interrupted in epoch ")
    assert "nothing is kept without checkpoints.save" in said
    assert not litter()


SLOW = """
import sys, time
from birdsonnx.{module} import {name} as module
real = module.{function}
def slow(*words, **options):
    print("working", flush=True)
    {wait}
    return real(*words, **options)
module.{function} = slow
from birdsonnx.cli.app import main
sys.argv = ["birdsonnx", *sys.argv[1:]]
main()
"""


def slow(module: str, name: str, function: str, wait: str = "time.sleep(60)") -> str:
    return SLOW.format(module=module, name=name, function=function, wait=wait)


WORK = {
    "predict": (
        ("predict", "data/valid", "--model", "model.onnx"),
        ("inference.keeping", "hdf5", "require_storable"),
    ),
    "quantize": (
        ("quantize", "model.onnx", "--calibrate", "data/train"),
        ("inference", "quantizing", "evenly"),
    ),
    "features": (("train", "config.json"), ("training", "refused_photos", "require_none")),
}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("work", WORK)
def test_other_work_ends_at_once_without_litter(config, work, number):
    config(birdsonnx={"cache": "kept"})
    words, place = WORK[work]
    with start(*words, script=slow(*place)) as process:
        wait_for(process, "working")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    how_to_go_on = "; to go on: birdsonnx train config.json" if work == "features" else ""
    assert (process.returncode, said) == (128 + number, f"birdsonnx: interrupted{how_to_go_on}\n")
    assert not litter()
    assert not list(Path().rglob("features-*"))
    assert not Path("predictions/output_1.h5").exists()


@pytest.mark.parametrize(
    "error", ["ImportError('initialization failed')", "errors.InstallationError('no Keras')"]
)
def test_what_a_library_makes_of_it_is_not_the_reason(config, error):
    """A signal in the import of a library comes out of it as an ImportError."""
    script = slow("inference", "quantizing", "evenly", "fail()").replace(
        "real =",
        "from birdsonnx import errors\n"
        "def fail():\n"
        "    try:\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        f"        raise {error}\n"
        "real =",
        1,
    )
    with start(*WORK["quantize"][0], script=script) as process:
        wait_for(process, "working")
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "birdsonnx: interrupted\n")


IN_A_LIBRARY = (
    "import ctypes; mutex = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock; "
    "lock(mutex); lock(mutex)"
)
"""Waits for ever, and no signal interrupts it, as one would a sleep."""


@pytest.mark.parametrize("wait", ["time.sleep(60)", IN_A_LIBRARY], ids=["step", "library"])
def test_a_second_signal_ends_at_once(config, wait):
    """In a step that the first one waits for, and inside a library."""
    config()
    script = slow("training.gradients", "Gradients", "sum_over", wait)
    with start("train", "config.json", script=script) as process:
        wait_for(process, "working")
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
        assert process.poll() is None
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.perf_counter() - started < 2


IN_AN_IMPORT = """
import os, sys, time
from importlib.abc import MetaPathFinder
class Slow(MetaPathFinder):
    def find_spec(self, name, *others):
        if name == "typer":
            os.write(1, b"working\\n")  # in one piece, also where PYTHONUNBUFFERED lets print write two
            {wait}
sys.meta_path.insert(0, Slow())
from birdsonnx.__main__ import main
main()
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_before_the_verb_begins(number):
    with start("info", "model.onnx", script=IN_AN_IMPORT.format(wait="time.sleep(60)")) as process:
        wait_for(process, "working")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + number, "birdsonnx: interrupted\n")


UNTIL_THE_SIGNAL = """
            from birdsonnx.runtime import interruption
            until = time.monotonic() + 60
            while not interruption.asked() and time.monotonic() < until:
                time.sleep(0.02)
"""
TO_ONE = """
            if os.environ["PMI_RANK"] == "1":
                os.kill(os.getpid(), {number})
"""


@pytest.mark.parametrize("to", ["all", "one"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_before_the_ranks_know_each_other(number, to):
    """It waits for them: of a process that exits before it has come to MPI the others would not hear."""
    wait = UNTIL_THE_SIGNAL if to == "all" else TO_ONE.format(number=int(number))
    patch = IN_AN_IMPORT.format(wait=wait.strip())
    with start("info", "model.onnx", ranks=2, script=patch) as process:
        if to == "all":
            for _ in range(2):
                wait_for(process, "working")
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said in ("birdsonnx: interrupted\n", "birdsonnx: rank 0: interrupted\n")


def test_the_help_can_be_interrupted(tmp_path):
    """As all that typer does itself, which would take any signal for Ctrl-C and say nothing."""
    script = (
        "import time\nfrom birdsonnx.__main__ import main\nfrom birdsonnx.cli import app\n"
        "def slow(value):\n    print('working', flush=True)\n    time.sleep(60)\n"
        "app.write_line = slow\nmain()"
    )
    with start("--version", script=script) as process:
        wait_for(process, "working")
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "birdsonnx: interrupted\n")


ONE_RANK = """
import os, sys, time
from pathlib import Path
from birdsonnx.runtime import ranks
from birdsonnx.reporting import tables
{patch}
sys.argv = ["birdsonnx", *sys.argv[1:]]
from birdsonnx.__main__ import main
main()
"""
LATE = """
real = tables.write_evaluation
def slow(*words):
    Path("working").touch()
    time.sleep(60)
tables.write_evaluation = slow
join = ranks.join
def joined():
    found = join()
    if found.rank == 1:
        Path("process").write_text(str(os.getpid()))
    return found
ranks.join = joined
"""
EARLY = """
join = ranks.join
def joined():
    found = join()
    if found.rank == 1:
        Path("process").write_text(str(os.getpid()))
        Path("working").touch()
        time.sleep(1)
    return found
ranks.join = joined
"""


BETWEEN = (
    """
from birdsonnx.inference.keeping import hdf5
def slow(*words):
    Path("working").touch()
    time.sleep(60)
hdf5.require_storable = slow
"""
    + LATE
)


@pytest.mark.parametrize(
    ("patch", "verb"),
    [(LATE, "evaluate"), (EARLY, "evaluate"), (BETWEEN, "predict")],
    ids=["late", "early", "between"],
)
def test_a_signal_to_one_rank_ends_all(workspace, patch, verb):
    """While rank 0 writes what all have computed or compute, and before the ranks have met."""
    words = (verb, "data/valid", "--model", "model.onnx", "--csv", "table.csv")
    with start(*words, ranks=2, script=ONE_RANK.format(patch=patch)) as process:
        while not Path("working").exists():
            time.sleep(0.02)
        time.sleep(0.2)  # the other rank is done, and waits
        os.kill(int(Path("process").read_text()), signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "birdsonnx: rank 0: interrupted\n")
    assert not litter()


def test_an_ignored_signal_stays_ignored(config):
    """As nohup leaves SIGHUP."""
    config(num_epochs=100_000)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("train", "config.json")
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        wait_for(process, "epoch 1/")
        process.send_signal(signal.SIGHUP)
        wait_for(process, "epoch 3/")
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
