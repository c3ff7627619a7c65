"""What Slurm gave the job on this node. Without its plug-ins task/affinity and task/cgroup nothing but these
variables tells: all cores of the node are within reach then, also those of other users' jobs."""

import os
from collections.abc import Mapping

BYTES_PER_MB = 2**20


def cores(environment: Mapping[str, str] | None = None) -> int | None:
    """Of the job or the step on this node, to be shared by its ranks there; None outside Slurm."""
    return _number("SLURM_CPUS_ON_NODE", environment)


def memory(environment: Mapping[str, str] | None = None) -> int | None:
    """Bytes that the job may have on this node; None outside Slurm, and where it does not limit them."""
    node_mb = _number("SLURM_MEM_PER_NODE", environment)
    if node_mb is not None:
        return node_mb * BYTES_PER_MB
    core_mb, count = _number("SLURM_MEM_PER_CPU", environment), cores(environment)
    return None if core_mb is None or count is None else core_mb * count * BYTES_PER_MB


def _number(name: str, environment: Mapping[str, str] | None) -> int | None:
    """One above 0: for memory, 0 is all that there is."""
    text = (os.environ if environment is None else environment).get(name, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None
