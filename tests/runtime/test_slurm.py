"""What Slurm's variables say of a job's share of a node, and how they change what is used of it."""

import pytest

from birdsonnx.runtime import control_groups, memory, slurm, threads
from birdsonnx.runtime.launchers import launching
from birdsonnx.runtime.ranks import Ranks


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_CPUS_ON_NODE": "16"}, 16),
        ({"SLURM_CPUS_ON_NODE": ""}, None),
        ({"SLURM_CPUS_ON_NODE": "0"}, None),
        ({"SLURM_CPUS_ON_NODE": "8(x2)"}, None),
        ({"SLURM_CPUS_PER_TASK": "4"}, None),
    ],
)
def test_cores(environment, expected):
    assert slurm.cores(environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected_mb"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "4000"}, 4000),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "1500", "SLURM_CPUS_ON_NODE": "16"}, 24_000),
        ({"SLURM_MEM_PER_CPU": "1500"}, None),
        ({"SLURM_CPUS_ON_NODE": "16"}, None),
    ],
)
def test_memory(environment, expected_mb):
    assert slurm.memory(environment) == (None if expected_mb is None else expected_mb * 2**20)


class TwoOnThisHost(Ranks):
    def sharing(self, resource: object) -> list[int]:
        return [0, 1]


@pytest.mark.parametrize(("given", "expected"), [("8", 4), ("3", 1), ("1", 1), ("64", 8)])
def test_threads_are_those_of_the_allocation(monkeypatch, given, expected):
    """Without task/affinity all cores of the node are within reach."""
    monkeypatch.setattr(threads, "available_cores", lambda: frozenset(range(16)))
    monkeypatch.setattr(threads, "cgroup_cores", lambda: None)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
    assert threads.share(TwoOnThisHost()).threads == expected
    assert threads.share(TwoOnThisHost(), 5).threads == 5


def test_memory_is_that_of_the_allocation(monkeypatch, tmp_path):
    nothing = tmp_path / "nothing"
    before = memory.limit(tmp_path, nothing)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert memory.limit(tmp_path, nothing) == min(before, 100 * 2**20)


def test_limits_of_the_job_and_the_step_are_above_the_task(tmp_path):
    """Version 1 as version 2."""
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/slurm/uid_1/job_2/step_0/task_0\n")
    (tmp_path / "memory/slurm/uid_1/job_2").mkdir(parents=True)
    (tmp_path / "memory/slurm/uid_1/job_2/memory.limit_in_bytes").write_text("1000000\n")
    assert memory.limit(tmp_path, membership) == 1_000_000
    folders = [folder for folder, _ in control_groups.folders("memory", tmp_path, membership)]
    assert folders[0] == tmp_path / "memory/slurm/uid_1/job_2/step_0/task_0"
    assert folders[-1] == tmp_path / "memory"


STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("size", "environment", "expected"),
    [
        (1, {}, ""),
        (1, STEP, ""),
        (4, {}, "mpirun -np 4"),
        (4, {"PMI_SIZE": "4"}, "mpirun -np 4"),
        (4, STEP, "srun -n 4"),
        (4, STEP | {"PMI_SIZE": "4", "SLURM_CPUS_PER_TASK": "8"}, "srun -n 4 -c 8"),
        (4, STEP | {"SLURM_MPI_TYPE": "pmi2"}, "srun -n 4 --mpi=pmi2"),
        (4, STEP | {"PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}, "mpirun -np 4"),
        (4, STEP | {"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun -np 4"),
    ],
)
def test_how_to_start_as_many_again(size, environment, expected):
    assert launching(size, environment) == expected.split()
