"""How much memory this process may take, and who waits for some of it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from birdsonnx.runtime import control_groups, slurm
from birdsonnx.runtime.launchers import launched_processes

FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}
"""Of a limit, by the version of control groups."""

PART = 4
"""A budget is this part of the memory: the rest is for the network, the features and other programs."""


def limit(root: Path = control_groups.ROOT, membership: Path = control_groups.MEMBERSHIP) -> int:
    """Bytes that the machine has, or its control groups or Slurm allow, the least of them."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for folder, version in control_groups.folders("memory", root, membership):
        with suppress(OSError, ValueError):  # no such file; "max"
            found.append(int((folder / FILES[version]).read_text()))
    of_job = slurm.memory()
    return min(found if of_job is None else [*found, of_job], default=2**33)


class Budget:
    """Bytes that the threads of a process share: who would exceed them waits. One that wants more than all of
    them gets it once no other has any, unless it wants more than `most`, which is all that there is."""

    def __init__(self, total: int, most: int) -> None:
        self.total = total
        self._most = most
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Have `count` bytes while the body runs. Raises MemoryError where there are not so many."""
        if count > self._most:
            raise MemoryError(f"it takes {count / 1e9:.1f} GB of memory, of {self._most / 1e9:.1f} GB")
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + count <= self.total)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


@cache
def for_pictures() -> Budget:
    """Of the pictures that are being decoded by all threads of this process."""
    return Budget(limit() // PART // launched_processes(), limit())
