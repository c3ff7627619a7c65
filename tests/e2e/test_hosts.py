"""Ranks on two hosts, each a namespace of this machine with an address, a name and an sshd of its own."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import hosts
from benchmarks.hosts import Host
from tests.command import MPIRUN, birdsonnx, succeed

pytestmark = pytest.mark.skipif(
    hosts.why_not() is not None, reason=f"no hosts can be made here: {hosts.why_not()}"
)

BIRDSONNX = [sys.executable, "-m", "birdsonnx"]
TWO_EACH = [str(MPIRUN), "-hosts", "a,b", "-ppn", "2", "-np", "4"]

QUICK = """
import sys
from birdsonnx.runtime import far_hosts
far_hosts.IDLE_S = far_hosts.INTERVAL_S = far_hosts.PROBES = 1
far_hosts.SILENCE_S = 2
from birdsonnx.cli.app import main
sys.argv = ["birdsonnx", *sys.argv[1:]]
main()
"""


@pytest.fixture
def two(monkeypatch) -> Iterator[tuple[Host, Host]]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    with hosts.made(2) as (a, b):
        yield a, b


def losses() -> np.ndarray:
    return np.loadtxt("out_train.txt")[:, 3]


def test_two_hosts_with_copies_of_their_own_give_the_curve_of_one(workspace, training_config, two):
    a, b = two
    own = {"cache": str(workspace / "cache")}
    Path("config.json").write_text(json.dumps(training_config(birdsonnx=own)))
    (workspace / "cache").mkdir()
    for name in ("data", "cache"):
        b.own(workspace / name)
    done = a.run([*TWO_EACH, *BIRDSONNX, "train", "config.json"])
    assert done.returncode == 0, done.stderr
    together = losses()
    assert list((workspace / "cache").glob("features-*.npy"))
    assert "features-" in b.run(["ls", str(workspace / "cache")]).stdout

    named = a.run(
        [*TWO_EACH, *BIRDSONNX, "predict", "data/valid", "--model", "model.onnx", "--csv", "two.csv"]
    )
    assert named.returncode == 0, named.stderr
    assert not a.processes()
    assert not b.processes()

    succeed("train", "config.json")
    np.testing.assert_allclose(together, losses(), rtol=1e-4)
    succeed("predict", "data/valid", "--model", "model.onnx", "--csv", "one.csv", "-o", "alone")
    answers = [
        [row.split(",")[:2] for row in Path(name).read_text().splitlines()] for name in ("one.csv", "two.csv")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 10


def test_a_link_that_goes_down_ends_the_job_on_both_sides_and_the_run_goes_on(
    workspace, training_config, two
):
    a, b = two
    Path("config.json").write_text(json.dumps(training_config(num_epochs=100_000)))
    with Path("said").open("w") as said:
        program = [sys.executable, "-c", QUICK]
        job = a.start([*TWO_EACH, *program, "train", "config.json"], stdout=said, stderr=said)
        ends_s = time.monotonic() + 60
        while not list(Path("saved").glob("model_checkpoint_*.onnx")):
            assert time.monotonic() < ends_s, Path("said").read_text()
            time.sleep(0.05)
        b.unplug()
        assert job.wait(60) == 2
    [line] = [line for line in Path("said").read_text().splitlines() if line.startswith("birdsonnx: ")]
    assert line.startswith("birdsonnx: rank 0: ranks 2, 3 on b: no answer from there for 2 s")
    ends_s = time.monotonic() + 30
    while any("far_hosts.SILENCE_S" in words for host in (a, b) for words in host.processes().values()):
        assert time.monotonic() < ends_s
        time.sleep(0.05)
    done = [int(path.stem.split("_")[-1]) for path in Path("saved").glob("model_checkpoint_*.onnx")]
    more = f"num_epochs={max(done) + 1}"
    resumed = birdsonnx("train", "config.json", "--resume", "--set", more)
    assert resumed.returncode == 0, resumed.stderr
    assert np.isfinite(losses()).all()
