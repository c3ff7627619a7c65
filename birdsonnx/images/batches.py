"""Several photos decoded into one array."""

from collections.abc import Sequence

import numpy as np

from birdsonnx.errors import ImageError
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.folders import Photo


def decode(
    decoder: Decoder, photos: Sequence[Photo], indices: Sequence[int]
) -> tuple[Pixels, list[int], list[tuple[int, str]]]:
    """Pixels, uint8 `[photos, height, width, channels]`, and positions of the good photos; positions and
    reasons of the bad ones."""
    pixels = np.empty((len(indices), decoder.height, decoder.width, decoder.channels), np.uint8)
    good: list[int] = []
    refused: list[tuple[int, str]] = []
    for index in indices:
        try:
            decoder(photos[index].path, out=pixels[len(good)])
            good.append(index)
        except ImageError as error:
            refused.append((index, str(error)))
    return pixels[: len(good)], good, refused
