"""How photos are spread over cores, and by which engine they are computed."""

from dataclasses import dataclass

from birdsonnx.runtime.engine import EngineName
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, streams_for

MANY = 500
"""From so many photos on it pays to change the model for this CPU."""

SIDE_BY_SIDE = 2000
"""From so many photos on it pays to lay small maps side by side: that takes 0.3 s for a float32 ResNet50, and
saves 0.7 ms a photo on 2 cores; for int8 0.1 s, and 0.05 (on AMX) to 0.25 ms. It also loads the onnx
package."""

PHOTOS_PER_LARGE_RUN = 8
"""Of int8 with small maps side by side: 1.02 to 1.04 x the images/s of 4. In float32 it is 1.01 x, for 60 MB
more. Of OpenVINO too."""


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


def usual(engine: EngineName, quantized: bool, photos: int, threads: int) -> Form:
    """The form for so many photos of this rank where none was measured."""
    streams, inside = streams_for(photos, threads)
    if engine == "openvino":
        # Every run has this size: of few photos no more than one stream gets.
        per_run = min(PHOTOS_PER_LARGE_RUN, max(1, -(-photos // streams)))
    else:
        per_run = PHOTOS_PER_LARGE_RUN if quantized and photos >= SIDE_BY_SIDE else PHOTOS_PER_RUN
    return Form(streams, inside, per_run, engine)
