"""How many threads this rank may use: its cores, divided among the ranks that share them."""

import os
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.runtime import control_groups, slurm
from birdsonnx.runtime.ranks import Ranks


@dataclass(frozen=True)
class ThreadShare:
    """The number of threads, and a line to print where the user asked for more than there is."""

    threads: int
    note: str = ""


def available_cores() -> frozenset[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cgroup_cores(
    root: Path = control_groups.ROOT, membership: Path = control_groups.MEMBERSHIP
) -> float | None:
    """The container's CPU time limit in cores (cgroup v2 `cpu.max` on the way up, or v1 quota), or None."""
    limits = [
        _quota(folder / "cpu.max")
        if version == 2
        else _quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
        for folder, version in control_groups.folders("cpu", root, membership)
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _quota(quota: Path, period: Path | None = None) -> float | None:
    try:
        numbers = f"{quota.read_text()} {period.read_text() if period else ''}".split()
        return int(numbers[0]) / int(numbers[1]) if int(numbers[0]) > 0 else None
    except (OSError, ValueError, IndexError, ZeroDivisionError):  # no limit, or "max"
        return None


def share(ranks: Ranks, requested: int | None = None) -> ThreadShare:
    """Threads for this rank: `requested` as it is, else its affinity set divided by the ranks that share
    that set, capped by its share of what a container or Slurm allows, at least 1; OMP_NUM_THREADS lowers it
    and cannot raise it (4 ranks x 8 threads on 2 cores are 4 x slower than 4 x 1)."""
    cores = available_cores()
    sharing = len(ranks.sharing(cores))
    threads = max(1, len(cores) // sharing)
    limits = [limit for limit in (cgroup_cores(), slurm.cores()) if limit is not None]
    if limits:
        threads = max(1, min(threads, int(min(limits) / ranks.on_this_host())))
    if requested is not None:
        return ThreadShare(requested)
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        if int(wanted) > threads:
            owners = "1 rank" if sharing == 1 else f"{sharing} ranks"
            return ThreadShare(
                threads,
                f"OMP_NUM_THREADS={wanted} asks for more than there is; using {threads} per rank "
                f"({len(cores)} cores for {owners})",
            )
        threads = int(wanted)
    return ThreadShare(threads)
