"""The frozen part of a network, which makes the features of photos."""

from typing import Any

import numpy as np

from birdsonnx.config.computing import EngineName
from birdsonnx.images.decoding import Decoder
from birdsonnx.inference import engines
from birdsonnx.inference.forms import MANY, OPENVINO_PHOTOS_PER_RUN, Form
from birdsonnx.runtime import openvino_engine
from birdsonnx.runtime.engine import Engine
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, runtime_version


class Backbone:
    """A frozen part, loaded when it is first needed: features that are in the cache never need it.

    Args:
        model: `images` to `features`, serialized.
        row: the type of one photo's features, such as `np.dtype(("<f4", (2048,)))`.
        decoder: from a photo's file to its pixels.
        streams: threads that run photos.
        engine: what computes it.
        bf16: whether that may round to bf16.
    """

    def __init__(
        self,
        model: bytes,
        row: np.dtype[Any],
        decoder: Decoder,
        streams: int,
        engine: EngineName = "onnxruntime",
        bf16: bool = False,
    ) -> None:
        self.model = model
        self.row = row
        self.decoder = decoder
        per_run = PHOTOS_PER_RUN if engine == "onnxruntime" else OPENVINO_PHOTOS_PER_RUN
        self.form = Form(streams, 1, per_run, engine)
        self._bf16 = bf16
        self._opened: Engine | None = None

    @property
    def streams(self) -> int:
        return self.form.streams

    @property
    def computed_by(self) -> tuple[str, ...]:
        """What decides the bits of the features beside the model: the engine, its version, its precision."""
        if self.form.engine == "onnxruntime":
            return (runtime_version(),)
        return (self.form.engine, str(openvino_engine.installed_version()), "bf16" if self._bf16 else "")

    @property
    def engine(self) -> Engine:
        """Raises EngineError where it cannot run the model."""
        if self._opened is None:
            self._opened = engines.opened(self.model, "the frozen part", self.form, MANY, self._bf16)
        return self._opened
