"""What mpirun or srun tells each process that it starts, before MPI is loaded."""

import os
from collections.abc import Mapping

# MPICH and Intel MPI, Open MPI, a Slurm step.
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
OF_MPIRUN = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_SIZE")
"""Of MPICH and Intel MPI, and of Open MPI: srun sets neither."""


def launched_processes(environment: Mapping[str, str] | None = None) -> int:
    """How many processes the launcher says it started; 1 without a launcher."""
    environment = os.environ if environment is None else environment
    sizes = [environment.get(name, "") for name in SIZE_VARIABLES]
    return max((int(size) for size in sizes if size.isdigit()), default=1)


def is_first_launched() -> bool:
    """Whether the launcher calls this process rank 0; without a launcher every one is."""
    return next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0") == "0"


def is_started_by_srun(environment: Mapping[str, str] | None = None) -> bool:
    """Whether Slurm's own launcher started this process. Within a job of Slurm, mpirun starts its helpers by
    srun, whose variables reach the ranks too."""
    environment = os.environ if environment is None else environment
    return "SLURM_STEP_NUM_TASKS" in environment and not any(name in environment for name in OF_MPIRUN)


def launching(size: int, environment: Mapping[str, str] | None = None) -> list[str]:
    """The words that start so many processes as these were started; none for one."""
    environment = os.environ if environment is None else environment
    if size == 1:
        return []
    if not is_started_by_srun(environment):
        return ["mpirun", "-np", str(size)]
    words = ["srun", "-n", str(size)]
    if "SLURM_CPUS_PER_TASK" in environment:
        words += ["-c", environment["SLURM_CPUS_PER_TASK"]]
    if "SLURM_MPI_TYPE" in environment:
        words.append(f"--mpi={environment['SLURM_MPI_TYPE']}")
    return words
