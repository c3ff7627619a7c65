"""The demo's birds: the same from the same seed, and told apart by their shapes alone."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from birdsonnx.invented_birds import SIZE, SPECIES, picture

GREY = (255, 255, 255)


class Still(np.random.Generator):
    """Draws the middle of every range: one pose, before one grey."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def uniform(self, low, high, size=None):
        return np.full(size or (), (low + high) / 2)

    def integers(self, low, high, size=None):
        return np.full(size or (), (low + high) // 2)

    def random(self):
        return 1.0


def silhouette(name: str) -> np.ndarray:
    """Where a bird is, bool `[height, width]`; all of its feathers have one colour."""
    one = {"back": GREY, "breast": GREY, "bill_color": GREY, "mask": None, "bib": None}
    bird = replace(SPECIES[name], **one, bars=None, spots=None, wing_bars=None)
    pixels = np.asarray(picture(bird, Still())).astype(int)
    return np.abs(pixels - pixels[0, 0]).max(axis=2) > 20


def test_the_same_seed_draws_the_same_bird():
    for species in SPECIES.values():
        first, again = (picture(species, np.random.default_rng(3)) for _ in range(2))
        assert first.size == (SIZE, SIZE)
        assert first.mode == "RGB"
        assert first.tobytes() == again.tobytes() != picture(species, np.random.default_rng(4)).tobytes()


@pytest.mark.parametrize("pair", list(combinations(SPECIES, 2)), ids="-".join)
def test_no_two_have_one_shape(pair):
    one, other = map(silhouette, pair)
    assert 0.04 < one.mean() < 0.5
    shared = (one & other).sum() / (one | other).sum()
    assert shared < 0.85, shared
