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
            own = root / path.lstrip("/")
            yield from ((level, 2) for level in (own, *own.parents) if level.is_relative_to(root))
        elif controller in controllers.split(","):
            yield from ((base, 1) for base in (root / controller / path.lstrip("/"), root / controller))
