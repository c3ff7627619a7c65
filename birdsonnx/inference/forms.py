"""How photos are spread over cores, and by which engine they are computed."""

from dataclasses import dataclass

from birdsonnx.config.computing import EngineName
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, streams_for

MANY = 500
"""From so many photos on it pays to change an int8 model for AMX, and to use what `--tune` measured."""

OPENVINO_PHOTOS_PER_RUN = 8


@dataclass(frozen=True)
class Form:
    """How photos are spread over cores."""

    streams: int
    """Runs beside each other on one session."""
    threads: int
    """Inside a run."""
    per_run: int
    """Photos per run."""
    engine: EngineName = "onnxruntime"

    def __str__(self) -> str:
        return f"{self.streams} x {self.threads} threads, {self.per_run} photos per run, by {self.engine}"


def chosen(measured: Form | None, engine: EngineName, photos: int, threads: int) -> Form:
    """What was measured, where that is about as many photos as these; else the usual form."""
    return usual(engine, photos, threads) if measured is None or photos < MANY else measured


def usual(engine: EngineName, photos: int, threads: int) -> Form:
    """The form for so many photos of this rank where none was measured."""
    streams, inside = streams_for(photos, threads)
    if engine == "onnxruntime":
        return Form(streams, inside, PHOTOS_PER_RUN, engine)
    # Every run of OpenVINO has this size: of few photos no more than one stream gets.
    return Form(streams, inside, min(OPENVINO_PHOTOS_PER_RUN, max(1, -(-photos // streams))), engine)
