"""Wall and CPU time of the steps of a training, as every side of finetune.py notes them."""

import resource
import time
from typing import Any


class Steps:
    """Of this process; `note` once after each step."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._cpu_s: list[float] = []

    def note(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)  # of all threads
        self._times_s.append(time.perf_counter())
        self._cpu_s.append(usage.ru_utime + usage.ru_stime)

    def figures(self) -> dict[str, Any]:
        """For JSON: `times_s`, `cpu_s` after each step, and `peak_gb` of memory so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {"times_s": self._times_s, "cpu_s": self._cpu_s, "peak_gb": peak}


def speeds(figures: dict[str, Any], batch: int, warm: int) -> dict[str, float]:
    """Images/s and CPU milliseconds per image of the steps, of `batch` photos, after the first `warm`."""
    times, cpu = figures["times_s"], figures["cpu_s"]
    images = (len(times) - warm) * batch
    return {
        "images_per_second": images / (times[-1] - times[warm - 1]),
        "cpu_ms_per_image": 1e3 * (cpu[-1] - cpu[warm - 1]) / images,
    }
