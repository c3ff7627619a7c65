"""The most memory that a process has had. `ru_maxrss` does not say it: that begins with the parent's."""

import contextlib
from pathlib import Path


def peak_mb(process: int | str = "self") -> float:
    """The largest resident memory so far, in MB (VmHWM, of Linux); 0 where the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
