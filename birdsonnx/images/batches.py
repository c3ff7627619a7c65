"""Several photos decoded into one array."""

from collections.abc import Sequence

import numpy as np

from birdsonnx.errors import ImageError
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.photo_file import Source
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.transforms import Views

Decoded = tuple[Pixels, list[int], list[tuple[int, str]]]
"""Pixels, uint8 `[photos, height, width, channels]`, and positions of the good photos; positions and reasons
of the bad ones."""


def decode(
    decoder: Decoder, photos: Sequence[Photo], indices: Sequence[int], views: Views | None = None
) -> Decoded:
    """Some of the photos, as `decode_each` does. With `views`, `photos` has each photo for each of its views;
    it is read once for those that follow each other."""
    if views is None:
        pixels, good, refused = decode_each(decoder, [photos[index].path for index in indices])
        return pixels, [indices[each] for each in good], [(indices[each], why) for each, why in refused]
    pixels, good, refused = room_for(decoder, len(indices)), [], []
    picture, shown = None, None
    for index in indices:
        photo = photos[index]
        try:
            if picture is None or photo != shown:
                picture, shown = decoder.opened(photo.path), photo
            pixels[len(good)] = decoder.transformed(picture, photo.path, views.chance(index))
            good.append(index)
        except ImageError as error:
            refused.append((index, str(error)))
    return pixels[: len(good)], good, refused


def decode_each(decoder: Decoder, sources: Sequence[Source]) -> Decoded:
    """Pixels, uint8 `[photos, height, width, channels]`, and positions of the good photos; positions and
    reasons of the bad ones."""
    pixels = room_for(decoder, len(sources))
    good: list[int] = []
    refused: list[tuple[int, str]] = []
    for index, source in enumerate(sources):
        try:
            decoder(source, out=pixels[len(good)])
            good.append(index)
        except ImageError as error:
            refused.append((index, str(error)))
    return pixels[: len(good)], good, refused


def room_for(decoder: Decoder, photos: int) -> Pixels:
    """Memory for the pixels of so many photos."""
    return np.empty((photos, decoder.height, decoder.width, decoder.channels), np.uint8)
