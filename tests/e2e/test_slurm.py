"""The batch scripts in a real Slurm of two nodes: they go on by themselves, to the same bits, and end what
cannot be carried out."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.command import birdsonnx, succeed
from tests.e2e import slurm_cluster
from tests.e2e.slurm_cluster import Cluster
from tests.tiny import photo, tiny_model

OBSTACLE = slurm_cluster.obstacle()
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE)

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ONE_EACH = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2")
TWO_ON_ONE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")
EPOCHS = 40
CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]

# So that there is time for a signal; the batch scripts call what is called birdsonnx on PATH.
SLOWLY = """#!{python}
import sys, time
from birdsonnx.cli.app import main
from birdsonnx.inference import units
from birdsonnx.runtime.sessions import Session
from birdsonnx.training.gradients import Gradients

def slowed(method, seconds):
    def slow(*words, **options):
        time.sleep(seconds)
        return method(*words, **options)
    return slow

units.PHOTOS_PER_UNIT = 8
Session.run = slowed(Session.run, 0.03 if sys.argv[1] == "predict" else 0.002)
Gradients.sum_over = slowed(Gradients.sum_over, 0.01)
main()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """A folder with a `birdsonnx` that is slow."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "birdsonnx").write_text(SLOWLY.format(python=sys.executable))
    (folder / "birdsonnx").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster.running() as running:
        yield running


@pytest.fixture
def submit(cluster, program) -> Callable[..., str]:
    """Give a batch script to Slurm; the job's number."""

    def call(
        script: str, *words: str, where: tuple[str, ...] = ONE_EACH, program: Path = program, **variables: str
    ) -> str:
        path = f"{program}{os.pathsep}{os.environ['PATH']}"
        cache = os.environ["XDG_CACHE_HOME"]
        words = ("--output=job-%j.out", *where, str(DEPLOY / script), *words)
        return cluster.submit(*words, PATH=path, XDG_CACHE_HOME=cache, **variables)

    return call


def waiting(folder: Path) -> Path:
    """A folder with a `birdsonnx` that does nothing, until it gets a signal."""
    program = folder / "bin" / "birdsonnx"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho waiting\nexec sleep 60\n")
    program.chmod(0o755)
    return program.parent


def said(job: str) -> str:
    path = Path(f"job-{job}.out")
    return path.read_text() if path.exists() else ""


def wait_for(cluster: Cluster, job: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + slurm_cluster.TIMEOUT_S
    while not condition():
        assert cluster.facts(job)["JobState"] == "RUNNING", said(job)
        assert time.monotonic() < deadline, said(job)
        time.sleep(0.02)


def warn(cluster: Cluster, job: str) -> None:
    """As Slurm does before the time limit."""
    cluster.call("scancel", "--batch", "--signal=USR1", job)


def weights_of(path: str) -> dict[str, bytes]:
    return {each.name: numpy_helper.to_array(each).tobytes() for each in onnx.load(path).graph.initializer}


# --- Training ---------------------------------------------------------------------------------------------


@pytest.fixture
def config(workspace, training_config) -> None:
    checkpoints = {"load": "model.onnx", "save": "saved/", "interval": 10_000}
    text = json.dumps(training_config(num_epochs=EPOCHS, checkpoints=checkpoints))
    Path("config.json").write_text(text)


def test_a_training_that_is_stopped_again_and_again_ends_in_the_bits_of_mpirun(cluster, submit, config):
    job = submit("train.slurm", "config.json")
    cluster.wait_for(job, "RUNNING")
    for restarts, epoch in ((1, 3), (2, 9)):
        wait_for(cluster, job, lambda epoch=epoch: f"epoch {epoch}/" in said(job))
        warn(cluster, job)
        cluster.start_again(job, restarts)
    facts = cluster.ended(job)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "2"), said(job)
    advice = re.findall("to go on: (.*)", said(job))
    words = f"srun -n 2 -c 2 --mpi=pmi2 birdsonnx train config.json --set checkpoints.save=checkpoints/{job}/"
    assert advice == [f"{words} --resume"] * 2
    curve = np.loadtxt("out_train.txt")[:, 1:]

    succeed("train", "config.json", "--overwrite", ranks=2)
    last = f"model_checkpoint_{EPOCHS}.onnx"
    assert weights_of(f"checkpoints/{job}/{last}") == weights_of(f"saved/{last}")
    assert np.array_equal(curve, np.loadtxt("out_train.txt")[:, 1:])


def test_a_new_job_goes_on_with_one_that_was_cancelled(cluster, submit, config):
    job = submit("train.slurm", "config.json")
    cluster.wait_for(job, "RUNNING")
    wait_for(cluster, job, lambda: "epoch 3/" in said(job))
    cluster.call("scancel", job)
    assert cluster.ended(job)["JobState"] == "CANCELLED"
    state = Path(f"checkpoints/{job}/model_interrupted.state.npz")
    deadline = time.monotonic() + slurm_cluster.TIMEOUT_S
    while not state.exists():  # the state of the job changes before its ranks have ended
        assert time.monotonic() < deadline, said(job)
        time.sleep(0.02)
    other = submit("train.slurm", "config.json", SAVE=f"checkpoints/{job}")
    assert cluster.ended(other)["JobState"] == "COMPLETED"
    assert "resuming after epoch " in said(other)
    assert cluster.facts(job)["Restarts"] == "0"
    assert (state.parent / f"model_checkpoint_{EPOCHS}.onnx").exists()


def test_what_cannot_be_carried_out_is_not_tried_again(cluster, submit, config):
    job = submit("train.slurm", "nothing.json")
    other = submit("predict.slurm", "nothing/", "--model", "model.onnx")
    for each in (job, other):
        facts = cluster.ended(each)
        assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "2:0", "0")
    assert "birdsonnx: nothing.json: there is no such config file" in said(job)


def test_a_time_limit_that_is_too_short_is_not_reached_for_ever(cluster, submit, config, tmp_path):
    job = submit("train.slurm", "config.json", program=waiting(tmp_path), SLURM_RESTART_COUNT="2")
    cluster.wait_for(job, "RUNNING")
    wait_for(cluster, job, lambda: "waiting" in said(job))
    warn(cluster, job)
    facts = cluster.ended(job)
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "143:0")
    assert "stopped 3 times before anything was kept" in said(job)


def test_a_rank_that_is_killed_ends_the_job(cluster, submit, config, tmp_path):
    """As it is where memory is short; its job would only meet the same end again."""
    job = submit("train.slurm", "config.json", program=waiting(tmp_path))
    cluster.wait_for(job, "RUNNING")
    wait_for(cluster, job, lambda: said(job).count("waiting") == 2)
    cluster.kill_rank(1)
    facts = cluster.ended(job)
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")


# --- Prediction -------------------------------------------------------------------------------------------


def test_a_prediction_that_is_stopped_goes_on_to_the_same_files(cluster, submit):
    tiny_model(3, CLASSES).save(Path("model.onnx"))
    generator = np.random.default_rng(0)
    Path("many").mkdir()
    for number in range(500):
        photo(number, generator, 40).save(f"many/{number:03}.png")
    words = ("many", "--model", "model.onnx", "--csv", "names.csv")
    assert birdsonnx("predict", *words).returncode == 0
    results = [Path("predictions/output_1.h5"), Path("names.csv")]
    expected = [path.read_bytes() for path in results]
    shutil.rmtree("predictions")
    Path("names.csv").unlink()

    job = submit("predict.slurm", *words, where=TWO_ON_ONE)
    cluster.wait_for(job, "RUNNING")
    progress = Path("predictions/output_1.h5.progress")
    wait_for(cluster, job, lambda: bool(list(progress.glob("*.units"))))
    warn(cluster, job)
    try:
        cluster.start_again(job, 1)
    except RuntimeError:
        print(said(job))
        raise
    facts = cluster.ended(job)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "1"), said(job)
    assert re.search(r"interrupted; the same command goes on after \d+ of 500 photos", said(job)), said(job)
    assert "going on after " in said(job)
    assert [path.read_bytes() for path in results] == expected
    assert not progress.exists()
