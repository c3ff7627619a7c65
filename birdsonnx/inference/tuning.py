"""How this machine runs a model fastest: measured once on request, remembered per model and machine."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from birdsonnx import artifacts
from birdsonnx.artifacts import checksums
from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.config.computing import EngineName
from birdsonnx.config.json_text import decoded
from birdsonnx.inference import engines
from birdsonnx.inference.forms import Form
from birdsonnx.inference.timing import timed
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime import openvino_engine
from birdsonnx.runtime.engine import Engine
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, runtime_version

PROBE_S = 0.5
"""Time for each form; with warm-up about 6 s in all on 2 cores."""
PER_RUN = (1, 2, PHOTOS_PER_RUN, 8, 16)


@dataclass(frozen=True)
class Tuning:
    """The fastest form that was found."""

    form: Form
    images_per_second: float


@dataclass(frozen=True)
class Among:
    """What a form is chosen among."""

    threads: int
    engines: tuple[EngineName, ...] = ("onnxruntime",)
    bf16: bool = False

    def forms(self) -> Iterator[Form]:
        """The forms to try: one single-threaded stream per core, or all cores inside each run. OpenVINO
        compiles a model anew for each, so of it fewer."""
        for engine in self.engines:
            for per_run in PER_RUN if engine == "onnxruntime" else PER_RUN[-3:]:
                yield Form(self.threads, 1, per_run, engine)
                if self.threads > 1:
                    yield Form(1, self.threads, per_run, engine)


def probe(
    model: bytes,
    among: Among,
    seconds: float = PROBE_S,
    advance: Callable[[int], None] = lambda _: None,
) -> Tuning:
    """Time every form on random pixels; the default one stays unless another is faster by 3 %.

    Raises:
        EngineError: an engine cannot run the model.
        ModelError: the runtime cannot load the model.
    """
    default = Form(among.threads, 1, PHOTOS_PER_RUN)
    rates: dict[Form, float] = {}
    sessions: dict[int, Engine] = {}
    for form in among.forms():
        takes_any_size = form.engine == "onnxruntime"  # one serves all forms with as many threads
        engine = sessions.get(form.threads) if takes_any_size else None
        if engine is None:
            engine = engines.opened(model, "the model", form, bf16=among.bf16)
        if takes_any_size:
            sessions[form.threads] = engine
        rates[form] = _rate(engine, form, seconds)
        advance(1)
    best = max(rates, key=lambda form: rates[form] * (1.03 if form == default else 1))
    return Tuning(best, rates[best])


def _rate(engine: Engine, form: Form, seconds: float) -> float:
    shape = engine.input_shapes[INPUT][1:]
    pixels = np.random.default_rng(0).integers(0, 256, (form.per_run, *shape), np.uint8)

    timing = timed(lambda: engine.run({INPUT: pixels}), time.perf_counter() + seconds, form.streams)
    return len(timing.durations_s) * form.per_run / timing.elapsed_s


class Memory:
    """Tunings in the cache folder, a JSON file each, so that runs which measure at the same time take nothing
    from each other; a file that cannot be read counts as missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def is_empty(self) -> bool:
        return next(self._folder.glob("tuned-*.json"), None) is None

    def recall(self, model: bytes, among: Among) -> Form | None:
        """The form that was found for this model and this machine among the same possibilities."""
        _, path = self._place(model, among)
        try:
            form = Form(**decoded(read_bytes(path).decode())["form"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return next((known for known in among.forms() if known == form), None)

    def keep(self, model: bytes, among: Among, tuning: Tuning) -> None:
        """Remember it. Raises ArtifactError."""
        about, path = self._place(model, among)
        artifacts.write_json(path, {"about": about, **asdict(tuning)})

    def _place(self, model: bytes, among: Among) -> tuple[str, Path]:
        about = _about(model, among)
        return about, self._folder / f"tuned-{checksums.fingerprint(about.encode()).hex()}.json"


def _about(model: bytes, among: Among) -> str:
    """All that a tuning depends on."""
    machine = f"{platform.node()}, {platform.machine()}, {os.cpu_count()} CPUs"
    engines_here = f"onnxruntime {runtime_version()}, openvino {openvino_engine.installed_version()}"
    return f"{artifacts.sha256_of(model)[:32]}, {among}, {machine}, {engines_here}"
