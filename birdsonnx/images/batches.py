"""Several photos decoded into one array."""

from collections.abc import Sequence

import numpy as np

from birdsonnx.errors import ImageError
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.folders import Photo
from birdsonnx.images.transforms import Views


def decode(
    decoder: Decoder, photos: Sequence[Photo], indices: Sequence[int], views: Views | None = None
) -> tuple[Pixels, list[int], list[tuple[int, str]]]:
    """Pixels, uint8 `[photos, height, width, channels]`, and positions of the good photos; positions and
    reasons of the bad ones. With `views`, `photos` has each photo for each of its views; it is read once for
    those that follow each other."""
    pixels = np.empty((len(indices), decoder.height, decoder.width, decoder.channels), np.uint8)
    good: list[int] = []
    refused: list[tuple[int, str]] = []
    picture, shown = None, None
    for index in indices:
        photo = photos[index]
        try:
            if views is None:
                decoder(photo.path, out=pixels[len(good)])
            else:
                if picture is None or photo is not shown:
                    picture, shown = decoder.opened(photo.path), photo
                pixels[len(good)] = decoder.transformed(picture, photo.path, views.chance(index))
            good.append(index)
        except ImageError as error:
            refused.append((index, str(error)))
    return pixels[: len(good)], good, refused
