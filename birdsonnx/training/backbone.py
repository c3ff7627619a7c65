"""The frozen part of a network, which makes the features of photos."""

from typing import Any

import numpy as np

from birdsonnx.images.decoding import Decoder
from birdsonnx.inference.classifier import fastest
from birdsonnx.runtime.sessions import Session


class Backbone:
    """A frozen part, loaded when it is first needed: features that are in the cache never need it.

    Args:
        model: `images` to `features`, serialized.
        row: the type of one photo's features, such as `np.dtype(("<f4", (2048,)))`.
        decoder: from a photo's file to its pixels.
        streams: threads that run photos.
    """

    def __init__(self, model: bytes, row: np.dtype[Any], decoder: Decoder, streams: int) -> None:
        self.model = model
        self.row = row
        self.decoder = decoder
        self.streams = streams
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(fastest(self.model))
        return self._session
