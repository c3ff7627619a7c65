"""What a server counts, as Prometheus' text format 0.0.4 has it
(https://prometheus.io/docs/instrumenting/exposition_formats/)."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from mmap import PAGESIZE
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32)
MEMORY = Path("/proc/self/statm")


class Histogram:
    """How many values there were up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum}"
        yield f"{name}_count {total}"


class Metrics:
    """Counts of one server; several threads may add to them.

    Args:
        about: texts that tell which model it serves.
    """

    def __init__(self, about: Mapping[str, str]) -> None:
        self._about = about
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._photos = {"named": 0, "refused": 0}
        self._latency = Histogram(SECONDS)
        self._batches = Histogram(BATCHES)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """One request has its answer. The latency is that of photos that were named: other answers come at
        once, and would hide it."""
        with self._lock:
            self._requests[path, status] += 1
            if path == "/predict" and status == 200:
                self._latency.add(seconds)

    def ran(self, named: int, refused: int) -> None:
        """One run of a stream is over."""
        with self._lock:
            self._photos["named"] += named
            self._photos["refused"] += refused
            if named:
                self._batches.add(named)

    def text(self, waiting: Callable[[], int]) -> str:
        """All of them; `waiting` tells how many photos no stream has taken."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(waiting()))

    def _lines(self, waiting: int) -> Iterator[str]:
        name = "birdsonnx_info"
        yield from _head(name, "gauge", "The model that answers.")
        yield f"{name}{_labels(self._about)} 1"
        name = "birdsonnx_requests_total"
        yield from _head(name, "counter", "Requests by path and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f"{name}{_labels({'path': path, 'status': str(status)})} {count}"
        name = "birdsonnx_photos_total"
        yield from _head(name, "counter", "Photos that were named, and that could not be.")
        for outcome, count in self._photos.items():
            yield f"{name}{_labels({'outcome': outcome})} {count}"
        name = "birdsonnx_queue_photos"
        yield from _head(name, "gauge", "Photos that wait for a stream.")
        yield f"{name} {waiting}"
        name = "birdsonnx_batch_photos"
        yield from _head(name, "histogram", "Photos in a run of the model.")
        yield from self._batches.lines(name)
        name = "birdsonnx_request_seconds"
        yield from _head(name, "histogram", "From the first line of a request to its last answered byte.")
        yield from self._latency.lines(name)
        memory = _resident_bytes()
        if memory is not None:
            name = "process_resident_memory_bytes"
            yield from _head(name, "gauge", "Memory of this process.")
            yield f"{name} {memory}"


def _head(name: str, kind: str, what: str) -> tuple[str, str]:
    return f"# HELP {name} {what}", f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, text in labels.items()
    )
    return "{" + ",".join(f'{name}="{text}"' for name, text in escaped) + "}"


def _resident_bytes() -> int | None:
    """Of this process; None where the system does not say."""
    try:
        return int(MEMORY.read_text().split()[1]) * PAGESIZE
    except (OSError, ValueError, IndexError):
        return None
