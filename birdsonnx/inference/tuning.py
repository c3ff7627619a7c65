"""How this machine runs a model fastest: measured once on request, remembered per model and machine."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from birdsonnx import artifacts
from birdsonnx.config.json_text import decoded
from birdsonnx.inference import engines
from birdsonnx.inference.forms import MANY, Form
from birdsonnx.inference.timing import timed
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime import openvino_engine
from birdsonnx.runtime.engine import Engine, EngineName
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, runtime_version

PROBE_S = 0.5
"""Time for each form; with warm-up about 6 s in all on 2 cores."""
PER_RUN = (1, 2, PHOTOS_PER_RUN, 8, 16)


@dataclass(frozen=True)
class Tuning:
    """The fastest form that was found."""

    form: Form
    images_per_second: float


def forms(threads: int, engine: EngineName = "onnxruntime") -> Iterator[Form]:
    """The forms to try: one single-threaded stream per core, or all cores inside each run. OpenVINO compiles
    a model anew for each, so of it fewer."""
    for per_run in PER_RUN if engine == "onnxruntime" else PER_RUN[-3:]:
        yield Form(threads, 1, per_run, engine)
        if threads > 1:
            yield Form(1, threads, per_run, engine)


def probe(
    model: bytes,
    threads: int,
    names: Sequence[EngineName] = ("onnxruntime",),
    bf16: bool = False,
    seconds: float = PROBE_S,
) -> Tuning:
    """Time every form of these engines on random pixels; the default one stays unless another is faster by
    3 %.

    Raises:
        EngineError: an engine cannot run the model.
        ModelError: the runtime cannot load the model.
    """
    default = Form(threads, 1, PHOTOS_PER_RUN)
    rates: dict[Form, float] = {}
    for name in names:
        sessions: dict[object, Engine] = {}
        for form in forms(threads, name):
            # ONNX Runtime takes runs of any size; one session serves all forms with as many threads.
            shared: object = form.threads if name == "onnxruntime" else form
            if shared not in sessions:
                sessions[shared] = engines.opened(model, "the model", form, MANY, bf16)
            rates[form] = _rate(sessions[shared], form, seconds)
    best = max(rates, key=lambda form: rates[form] * (1.03 if form == default else 1))
    return Tuning(best, rates[best])


def _rate(engine: Engine, form: Form, seconds: float) -> float:
    shape = engine.input_shapes[INPUT][1:]
    pixels = np.random.default_rng(0).integers(0, 256, (form.per_run, *shape), np.uint8)

    timing = timed(lambda: engine.run({INPUT: pixels}), time.perf_counter() + seconds, form.streams)
    return len(timing.durations_s) * form.per_run / timing.elapsed_s


class Memory:
    """Tunings in one JSON file of the cache folder; a file that cannot be read counts as empty."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tuned.json"

    @property
    def is_empty(self) -> bool:
        return not self._path.exists()

    def recall(self, model: bytes, among: object) -> Form | None:
        """The form that was found for this model and this machine among the same possibilities: of threads,
        engines and precision."""
        try:
            form = Form(**self._entries()[_key(model, among)]["form"])
        except (KeyError, TypeError):
            return None
        numbers = (form.streams, form.threads, form.per_run)
        sound = all(isinstance(number, int) and number > 0 for number in numbers)
        return form if sound and form.engine in get_args(EngineName) else None

    def keep(self, model: bytes, among: object, tuning: Tuning) -> None:
        """Remember it. Raises ArtifactError."""
        artifacts.write_json(self._path, {**self._entries(), _key(model, among): asdict(tuning)})

    def _entries(self) -> dict[str, Any]:
        try:
            entries = decoded(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def _key(model: bytes, among: object) -> str:
    machine = f"{platform.node()}, {platform.machine()}, {os.cpu_count()} CPUs"
    engines_here = f"onnxruntime {runtime_version()}, openvino {openvino_engine.installed_version()}"
    return f"{artifacts.sha256_of(model)[:32]}, {among}, {machine}, {engines_here}"
