"""Where a network is divided: by sizes and times that are given here, not measured."""

from collections.abc import Callable
from pathlib import Path

import pytest

from birdsonnx.errors import ImageError
from birdsonnx.model.metadata import INPUT
from birdsonnx.training import boundary as module
from birdsonnx.training.boundary import cheapest, decoder_of
from birdsonnx.training.partition import Boundary, Network
from tests.tiny import residual_model, tiny_model

PHOTOS = 1000
RATE = 1e9
"""Bytes per second of memory: 4 ms for a million numbers."""
PLENTY = 10**15


def at(name: str, size: int) -> Boundary:
    return Boundary((name,), ((size,),))


PHOTO = Boundary((INPUT,), ((200, 200, 3),))
FAR, NEAR = at("far", 100_000), at("near", 1_000_000)
HOPELESS = {"far": 1.0, INPUT: 1.0}


class Divided:
    """A network of which only the boundaries are known."""

    def __init__(self, *boundaries: Boundary) -> None:
        self.known = list(boundaries)

    def boundaries(self) -> list[Boundary]:
        return self.known


@pytest.fixture
def choose(monkeypatch) -> Callable[..., Boundary]:
    """The choice if reading and running took so many seconds per photo; `choose.timed` lists from which
    boundaries frozen layers were run."""
    timed: list[str] = []

    def of(
        *boundaries: Boundary,
        frozen_s: dict[str, float],
        decoding_s: float = 0.0,
        threads: int = 1,
        space: int = PLENTY,
        memory: int = PLENTY,
    ) -> Boundary:
        def frozen(network: Divided, start: Boundary, end: Boundary) -> float:
            assert end == boundaries[0]
            timed.append(start.tensors[0])
            return frozen_s[start.tensors[0]]

        def time_of(work: Callable[[], object]) -> float:
            work()
            return decoding_s

        monkeypatch.setattr(module, "_frozen_s", frozen)
        monkeypatch.setattr(module, "_time_of", time_of)
        monkeypatch.setattr(module, "_copy_rate", lambda: RATE)
        monkeypatch.setattr(module, "_memory", lambda: memory)
        timed.clear()
        return cheapest(Divided(*boundaries), PHOTOS, threads, space, lambda number: None)

    of.timed = timed
    return of


@pytest.mark.parametrize(
    ("frozen_s", "best"),
    [
        (0.0025, FAR),  # 0.4 ms to read and 2.5 to run are less than 80 % of 4, and more than 1 ms less
        (0.0027, NEAR),  # 3.1 are not 1 ms less
        (0.0029, NEAR),
        (0.0037, NEAR),
    ],
)
def test_reading_is_weighed_against_running(choose, frozen_s, best):
    assert choose(NEAR, FAR, PHOTO, frozen_s={"far": frozen_s, INPUT: 1.0}, decoding_s=1.0) == best


def test_threads_run_frozen_layers_beside_each_other_but_share_the_memory(choose):
    costs = {"frozen_s": {"far": 0.005, INPUT: 1.0}, "decoding_s": 1.0}
    assert choose(NEAR, FAR, PHOTO, **costs, threads=1) == NEAR
    assert choose(NEAR, FAR, PHOTO, **costs, threads=2) == FAR


def test_what_is_further_away_and_no_smaller_is_not_even_timed(choose):
    larger = (at("same", FAR.size), at("larger", 2 * FAR.size))
    assert choose(FAR, *larger, PHOTO, frozen_s={INPUT: 1.0}, decoding_s=1e-5) == FAR
    assert choose.timed == [INPUT]
    small = at("small", 30_000)
    choose(NEAR, FAR, *larger, small, PHOTO, frozen_s={**HOPELESS, "small": 1.0}, decoding_s=1.0)
    assert choose.timed == ["far", "small"]  # photos that take longer to decode are not run either


def test_of_several_the_cheapest(choose):
    middle = at("middle", 500_000)
    frozen_s = {"middle": 0.0005, "far": 0.0002, INPUT: 1.0}
    assert choose(NEAR, middle, FAR, PHOTO, frozen_s=frozen_s, decoding_s=1.0) == FAR
    # 0.4 + 1.7 ms are less than those of the nearest, but not enough less than 2.5 of the middle.
    frozen_s["far"] = 0.0017
    assert choose(NEAR, middle, FAR, PHOTO, frozen_s=frozen_s, decoding_s=1.0) == middle


def test_tables_must_fit(choose):
    middle = at("middle", 500_000)
    frozen_s = {"middle": 0.0, "far": 0.002, INPUT: 1.0}
    bytes_of_middle = 4 * middle.size * PHOTOS
    costs = {"frozen_s": frozen_s, "decoding_s": 1.0}
    assert choose(NEAR, middle, FAR, PHOTO, **costs, space=bytes_of_middle) == middle
    assert choose(NEAR, middle, FAR, PHOTO, **costs, space=bytes_of_middle - 1) == FAR
    # Training stops with a message where the nearest does not fit; another boundary would hide that.
    assert choose(NEAR, middle, FAR, PHOTO, **costs, space=0) == NEAR


def test_what_memory_cannot_hold_is_read_from_disk(choose):
    """A million numbers take 20 ms then, a hundred thousand 2 ms."""
    needed = 4 * NEAR.size * PHOTOS
    costs = {"frozen_s": {"far": 0.01, INPUT: 1.0}, "decoding_s": 1.0}
    assert choose(NEAR, FAR, PHOTO, **costs, memory=2 * needed + 2) == NEAR
    assert choose(NEAR, FAR, PHOTO, **costs, memory=2 * needed) == FAR


@pytest.mark.parametrize(
    ("decoding_s", "frozen_s", "threads", "best"),
    [
        (0.001, 0.001, 1, PHOTO),
        (0.001, 0.01, 1, NEAR),
        (0.01, 0.001, 1, NEAR),
        (0.01, 0.001, 8, PHOTO),
    ],
)
def test_the_photos_are_decoded_in_every_epoch(choose, decoding_s, frozen_s, threads, best):
    frozen = {"far": 1.0, INPUT: frozen_s}
    assert choose(NEAR, FAR, PHOTO, frozen_s=frozen, decoding_s=decoding_s, threads=threads) == best


def test_photos_may_be_larger_than_features_and_need_no_space(choose):
    small = at("small", PHOTO.size // 2)
    # Tables on disk: there is more than a millisecond to save.
    assert choose(small, PHOTO, frozen_s={INPUT: 0.0}, decoding_s=0.0, space=0, memory=0) == PHOTO


def test_without_a_choice_nothing_is_decoded():
    def decode(number: int) -> None:
        raise AssertionError("a photo was read")

    assert cheapest(Divided(PHOTO), PHOTOS, 1, PLENTY, decode) == PHOTO


# --- With real times ------------------------------------------------------------------------------------


def test_a_head_is_trained_on_what_comes_before_it():
    """24 numbers are read faster than any layer runs."""
    decoded = []
    found = cheapest(Network(tiny_model(), ["dense"]), PHOTOS, 2, PLENTY, decoded.append)
    assert found.size == 24
    assert {*decoded} <= set(range(PHOTOS))


@pytest.mark.parametrize(
    "network",
    [Network(tiny_model(), ["dense"]), Network(residual_model(), ["block_b", "dense"])],
    ids=["one tensor", "two tensors"],
)
def test_frozen_layers_are_timed_from_every_boundary(network):
    first, *others = network.boundaries()
    assert all(0 < module._frozen_s(network, boundary, first) < 1 for boundary in others)


def test_what_is_measured_of_the_machine():
    assert 1e8 < module._copy_rate() < 1e12
    assert 2**26 < module._memory() < 2**50


def test_a_damaged_photo_takes_its_time_too():
    def decode(path: Path) -> str:
        if path.name == "b":
            raise ImageError("damaged")
        return path.name

    read = decoder_of([Path("a"), Path("b"), Path("c")], decode)
    assert [read(number) for number in range(5)] == ["a", None, "c", "a", None]
