"""The kernel's control groups that this process is in: a container's, a Slurm job's."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[tuple[Path, int]]:
    """The folders whose files limit what this process may use, each with its version of control groups, 1 or
    2; a folder need not be there, as within a container.

    Args:
        controller: `cpu` or `memory`.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, version = root, 2
        elif controller in controllers.split(","):
            top, version = root / controller, 1
        else:
            continue
        own = top / path.lstrip("/")  # Slurm limits the job and the step, which are above it
        yield from ((level, version) for level in (own, *own.parents) if level.is_relative_to(top))
