"""How this machine runs a model fastest: measured once on request, remembered per model and machine."""

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from birdsonnx import artifacts
from birdsonnx.artifacts import checksums
from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.config.json_text import decoded
from birdsonnx.inference.timing import timed
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, Session

PROBE_S = 0.5
"""Time for each form; with warm-up about 6 s in all on 2 cores."""
PER_RUN = (1, 2, PHOTOS_PER_RUN, 8, 16)


@dataclass(frozen=True)
class Form:
    """How photos are spread over cores."""

    streams: int
    """Runs beside each other on one session."""
    threads: int
    """Inside a run."""
    per_run: int
    """Photos per run."""

    def __str__(self) -> str:
        return f"{self.streams} x {self.threads} threads, {self.per_run} photos per run"


@dataclass(frozen=True)
class Tuning:
    """The fastest form that was found."""

    form: Form
    images_per_second: float


def forms(threads: int) -> Iterator[Form]:
    """The forms to try: one single-threaded stream per core, or all cores inside each run."""
    for per_run in PER_RUN:
        yield Form(threads, 1, per_run)
        if threads > 1:
            yield Form(1, threads, per_run)


def probe(model: bytes, threads: int, seconds: float = PROBE_S) -> Tuning:
    """Time every form on random pixels; the default one stays unless another is faster by 3 %.

    Raises:
        ModelError: the runtime cannot load the model.
    """
    default = Form(threads, 1, PHOTOS_PER_RUN)
    sessions = {count: Session(model, count) for count in {1, threads}}
    rates = {form: _rate(sessions[form.threads], form, seconds) for form in forms(threads)}
    best = max(rates, key=lambda form: rates[form] * (1.03 if form == default else 1))
    return Tuning(best, rates[best])


def _rate(session: Session, form: Form, seconds: float) -> float:
    shape = session.input_shapes[INPUT][1:]
    pixels = np.random.default_rng(0).integers(0, 256, (form.per_run, *shape), np.uint8)

    timing = timed(lambda: session.run({INPUT: pixels}), time.perf_counter() + seconds, form.streams)
    return len(timing.durations_s) * form.per_run / timing.elapsed_s


class Memory:
    """Tunings in the cache folder, a JSON file each, so that runs which measure at the same time take nothing
    from each other; a file that cannot be read counts as missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def is_empty(self) -> bool:
        return next(self._folder.glob("tuned-*.json"), None) is None

    def recall(self, model: bytes, threads: int) -> Form | None:
        """The form that was found for this model, this number of threads and this machine."""
        _, path = self._place(model, threads)
        try:
            form = Form(**decoded(read_bytes(path).decode())["form"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return next((known for known in forms(threads) if known == form), None)

    def keep(self, model: bytes, threads: int, tuning: Tuning) -> None:
        """Remember it. Raises ArtifactError."""
        about, path = self._place(model, threads)
        artifacts.write_json(path, {"about": about, **asdict(tuning)})

    def _place(self, model: bytes, threads: int) -> tuple[str, Path]:
        about = _about(model, threads)
        return about, self._folder / f"tuned-{checksums.fingerprint(about.encode()).hex()}.json"


def _about(model: bytes, threads: int) -> str:
    """All that a tuning depends on."""
    import onnxruntime

    machine = f"{platform.node()}, {platform.machine()}, {os.cpu_count()} CPUs"
    runtime = f"onnxruntime {onnxruntime.__version__}"
    return f"{artifacts.sha256_of(model)[:32]}, {threads} threads, {machine}, {runtime}"
