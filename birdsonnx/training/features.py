"""What the trained part sees of photos: features from the cache, or pixels decoded for each batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from birdsonnx.images.batches import decode
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.transforms import chance_of
from birdsonnx.runtime.audience import Advance
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, in_streams, slices
from birdsonnx.training import refused_photos
from birdsonnx.training.feature_table import Rows

Kept = TypeVar("Kept")


class Features(Protocol):
    """Rows of photos at the boundary of the trained part."""

    def rows(self, photos: Sequence[int], epoch: int | None) -> Rows:
        """The rows of these photos, `[len(photos), *row_shape]`: with the random transforms of an epoch, or
        without an epoch, without random transforms. Safe to call from several threads at once."""


@dataclass(frozen=True)
class Dataset:
    """Features and labels (int64 `[photos]`) of a set of photos."""

    features: Features
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class Decoded:
    """The photos themselves: decoded, and changed by the random transforms anew in each epoch.

    `preload` keeps each photo in memory after its first use: its pixels, or with random transforms the whole
    picture that they start from. `seed` is the random transforms', None where there are none.
    """

    def __init__(self, decoder: Decoder, photos: Sequence[Photo], preload: bool, seed: int | None) -> None:
        self._decoder = decoder
        self._photos = photos
        self._pixels: dict[int, Pixels] | None = {} if preload and seed is None else None
        self._pictures: dict[int, Image.Image] | None = {} if preload and seed is not None else None
        self._seed = seed

    def rows(self, photos: Sequence[int], epoch: int | None) -> Rows:
        return np.stack([self._row(int(photo), epoch) for photo in photos])

    def _row(self, photo: int, epoch: int | None) -> Pixels:
        path = self._photos[photo].path
        if self._seed is None or epoch is None:
            return _kept(self._pixels, photo, lambda: self._decoder(path))
        picture = _kept(self._pictures, photo, lambda: self._decoder.opened(path))
        return self._decoder.transformed(picture, path, chance_of(self._seed, epoch, photo))


def _kept(store: dict[int, Kept] | None, photo: int, make: Callable[[], Kept]) -> Kept:
    """A photo's entry in the store, made the first time it is asked for; two threads may both make it."""
    if store is None:
        return make()
    if photo not in store:
        store[photo] = make()
    return store[photo]


def decoded(
    decoder: Decoder,
    photos: Sequence[Photo],
    preload: bool,
    seed: int | None,
    streams: int,
    ranks: Ranks,
    advance: Advance,
) -> Decoded:
    """Photos that are decoded for each batch; each was decoded once to see that it can be.

    Raises:
        DataError: photos that cannot be decoded, all of them listed.
    """
    refused: list[str] = []
    share = ranks.share(len(photos))

    def check(piece: Sequence[int]) -> list[tuple[int, str]]:
        return decode(decoder, photos, piece)[2]

    for found in in_streams(streams, check, slices(share, PHOTOS_PER_RUN)):
        refused += [reason for _, reason in found]
        advance(PHOTOS_PER_RUN * ranks.size)  # the other ranks are as far with their shares
    refused_photos.require_none(ranks, refused, len(photos))
    return Decoded(decoder, photos, preload, seed)
