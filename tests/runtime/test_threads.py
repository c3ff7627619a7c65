"""A rank's share of the cores: affinity, the container's limit, OMP_NUM_THREADS."""

import os
from pathlib import Path

import pytest

from birdsonnx.runtime import threads
from birdsonnx.runtime.ranks import Ranks

V2 = "0::/pod/job\n"
V1 = "9:name=systemd:/\n4:memory:/job\n3:cpu,cpuacct:/job\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {}, None),
        (V2, {"pod/job/cpu.max": "max 100000\n"}, None),
        (V2, {"pod/job/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"pod/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"cpu.max": "300000 100000\n"}, 3.0),
        (V2, {"pod/job/cpu.max": "400000 100000\n", "pod/cpu.max": "200000 100000\n"}, 2.0),
        (V2, {"pod/job/cpu.max": "max 100000\n", "pod/cpu.max": "200000 100000\n"}, 2.0),
        (V2, {"pod/job/cpu.max": ""}, None),
        (V2, {"pod/job/cpu.max": "100000 0"}, None),
        (V2, {"other/cpu.max": "100000 100000"}, None),
        (V1, {}, None),
        (V1, {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, None),
        (V1, {"cpu/job/cpu.cfs_quota_us": "250000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 2.5),
        (V1, {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 5.0),
        (V1, {"cpu/job/cpu.cfs_quota_us": "250000\n"}, None),
        (V1 + "0::/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2.0),
        ("4:memory:/job\n", {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "1"}, None),
    ],
)
def test_cgroup_limits(tmp_path, membership, files, expected):
    root = tmp_path / "cgroup"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (tmp_path / "membership").write_text(membership)
    assert threads.cgroup_cores(root, tmp_path / "membership") == expected


def test_no_limit_without_cgroups(tmp_path):
    assert threads.cgroup_cores(tmp_path, tmp_path / "nothing") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_are_those_of_the_affinity_set():
    before = os.sched_getaffinity(0)
    assert threads.available_cores() == before
    one = {min(before)}
    os.sched_setaffinity(0, one)
    try:
        assert threads.available_cores() == one
    finally:
        os.sched_setaffinity(0, before)


class Several(Ranks):
    """This rank beside others: some share its cores, some more its host."""

    def __init__(self, on_cores: int, on_host: int) -> None:
        self._sharing = {"host": on_host}
        self._on_cores = on_cores

    def sharing(self, resource: object) -> list[int]:
        return list(range(self._sharing.get(str(resource), self._on_cores)))


@pytest.fixture
def machine(monkeypatch):
    """Settle what the machine has."""

    def make(cores: int, limit: float | None = None) -> None:
        monkeypatch.setattr(threads, "available_cores", lambda: frozenset(range(cores)))
        monkeypatch.setattr(threads, "cgroup_cores", lambda: limit)

    return make


@pytest.mark.parametrize(
    ("cores", "limit", "on_cores", "on_host", "expected"),
    [
        (8, None, 1, 1, 8),
        (8, None, 3, 3, 2),
        (8, None, 1, 4, 8),
        (2, None, 4, 4, 1),
        (8, 4.0, 1, 1, 4),
        (8, 16.0, 1, 1, 8),
        (8, 1.5, 1, 1, 1),
        (8, 0.5, 1, 1, 1),
        (8, 4.0, 2, 2, 2),
        (8, 4.0, 1, 4, 1),
        (8, 6.0, 4, 4, 1),
    ],
)
def test_the_share_of_a_rank(machine, cores, limit, on_cores, on_host, expected):
    machine(cores, limit)
    assert threads.share(Several(on_cores, on_host)) == threads.ThreadShare(expected)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("1", 1), ("3", 3), ("4", 4), ("2,4", 2), ("", 4), ("0", 4), ("-2", 4), ("many", 4)],
)
def test_omp_num_threads_lowers(machine, monkeypatch, wanted, expected):
    machine(8)
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert threads.share(Several(2, 2)) == threads.ThreadShare(expected)


@pytest.mark.parametrize(("on_cores", "expected", "owners"), [(1, 8, "1 rank"), (2, 4, "2 ranks")])
def test_omp_num_threads_cannot_raise(machine, monkeypatch, on_cores, expected, owners):
    machine(8)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    share = threads.share(Several(on_cores, on_cores))
    assert share.threads == expected
    assert "OMP_NUM_THREADS=16 asks for more than there is" in share.note
    assert f"using {expected} per rank (8 cores for {owners})" in share.note


@pytest.mark.parametrize("requested", [1, 3, 50])
def test_what_is_requested_is_taken_exactly(machine, monkeypatch, requested):
    machine(8, 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads.share(Ranks(), requested) == threads.ThreadShare(requested)


def test_this_machine():
    assert 1 <= threads.share(Ranks()).threads <= len(threads.available_cores())
    assert Path("/proc/self/cgroup").exists() or threads.cgroup_cores() is None
