"""Transforms against slices and plain loops; their draws against the seed they must follow from."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.config.transforms import (
    CenterCrop,
    JitterCrop,
    Normalize,
    RandomHorizontalFlip,
    RandomRotate,
    RandomVerticalFlip,
    RandomZoom,
    Resize,
    Rotate,
    Transform,
)
from birdsonnx.errors import ConfigError, ImageError
from birdsonnx.images.decoding import Pixels, decoder
from birdsonnx.images.transforms import chance_of, transformed

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 17, 3), np.uint8)
GREY_LEVELS = 1.01
"""Pillow rounds to whole grey levels, once in each direction or by cutting the fraction off."""

RANDOM = (
    JitterCrop(0.6),
    RandomHorizontalFlip(0.5),
    RandomVerticalFlip(0.5),
    RandomZoom(0.6),
    RandomRotate(90.0),
)


class Drawing(np.random.Generator):
    """A generator whose numbers are given."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def random(self, size=None):
        return self.numbers.pop(0) if size is None else np.array([self.numbers.pop(0) for _ in range(size)])


def after(step: Transform, *numbers: float, pixels: Pixels = PIXELS) -> Pixels:
    chance = Drawing(*numbers)
    image = transformed(Image.fromarray(pixels), step, chance)
    assert chance.numbers == []
    return np.asarray(image)


def interpolated(pixels: Pixels, x: float, y: float) -> np.ndarray:
    """The bilinear value at (x, y), pixel centres at halves; beyond the outermost centres, their value."""
    height, width = pixels.shape[:2]
    value = np.zeros(3)
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for column in (left, left + 1):
        for row in (top, top + 1):
            share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
            value += share * pixels[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
    return value


def resampled(pixels: Pixels, source) -> np.ndarray:
    """The oracle: a plain loop. `source` says where an output pixel's centre comes from; outside is black."""
    height, width = pixels.shape[:2]
    found = np.zeros(pixels.shape)
    for row in range(height):
        for column in range(width):
            x, y = source(column + 0.5, row + 0.5)
            if 0 <= x < width and 0 <= y < height:
                found[row, column] = interpolated(pixels, x, y)
    return found


# --- Pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "flipped"),
    [
        (RandomHorizontalFlip, PIXELS[:, ::-1]),
        (RandomVerticalFlip, PIXELS[::-1]),
    ],
)
def test_flips_reverse_an_axis_below_their_probability(step, flipped):
    np.testing.assert_array_equal(after(step(0.3), 0.29), flipped)
    np.testing.assert_array_equal(after(step(0.3), 0.3), PIXELS)
    np.testing.assert_array_equal(after(step(0.0), 0.0), PIXELS)
    np.testing.assert_array_equal(after(step(1.0), 1 - 2**-53), flipped)


@pytest.mark.parametrize("drawn", [0.0, 0.1, 0.37, 0.5, 0.99])
def test_zoom_enlarges_the_centre_to_the_size_before(drawn):
    share = 0.8 * drawn
    found = after(RandomZoom(0.8), drawn)

    def source(x, y):
        return 17 * share / 2 + x * (1 - share), 11 * share / 2 + y * (1 - share)

    np.testing.assert_allclose(found, resampled(PIXELS, source), atol=GREY_LEVELS)
    assert (share == 0) == np.array_equal(found, PIXELS)


def turned_back(degrees):
    """Where a pixel of the picture turned clockwise (the rows run down) was before."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def source(x, y):
        x, y = x - 17 / 2, y - 11 / 2
        return cosine * x + sine * y + 17 / 2, -sine * x + cosine * y + 11 / 2

    return source


@pytest.mark.parametrize("degrees", [0.0, 1.0, 10.0, 33.3, 90.0, -120.0, 179.0, 200.0, -359.0])
def test_rotate_turns_clockwise_keeps_the_size_and_leaves_corners_black(degrees):
    found = after(Rotate(degrees))
    np.testing.assert_allclose(found, resampled(PIXELS, turned_back(degrees)), atol=GREY_LEVELS)
    if degrees == 33.3:
        assert not found[[0, 0, -1, -1], [0, -1, 0, -1]].any()


@pytest.mark.parametrize(("drawn", "degrees"), [(0.0, -40), (0.25, -20), (0.5, 0), (0.9, 32)])
def test_random_rotate_turns_between_its_bounds(drawn, degrees):
    found = after(RandomRotate(40.0), drawn)
    np.testing.assert_allclose(found, resampled(PIXELS, turned_back(degrees)), atol=GREY_LEVELS)


def test_a_quarter_turn_of_a_square_is_exact():
    square = PIXELS[:, :11]
    np.testing.assert_array_equal(after(Rotate(90.0), pixels=square), np.rot90(square, -1))
    np.testing.assert_array_equal(after(Rotate(180.0)), PIXELS[::-1, ::-1])


@pytest.mark.parametrize("across", [0.0, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("down", [0.0, 0.4, 0.999])
def test_jitter_crop_cuts_as_much_on_both_sides(across, down):
    x, y = math.floor(0.9 * across * 17 / 2), math.floor(0.9 * down * 11 / 2)
    np.testing.assert_array_equal(
        after(JitterCrop(0.9), across, down), PIXELS[y : 11 - y, x : 17 - x], strict=True
    )


@pytest.mark.parametrize("side", range(1, 6))
def test_jitter_crop_leaves_a_pixel(side):
    pixels = np.ascontiguousarray(PIXELS[:side, :side])
    assert min(after(JitterCrop(0.999999), 0.999999, 0.999999, pixels=pixels).shape) >= 1


def test_without_a_generator_the_random_ones_do_nothing():
    image = Image.fromarray(PIXELS)
    for step in RANDOM:
        assert transformed(image, step, None) is image


def test_normalize_is_not_for_pixels():
    np.testing.assert_array_equal(after(Normalize((0.5,), (0.1,))), PIXELS)


# --- Draws ----------------------------------------------------------------------------------------------


SIDE = 101
DOWN, ACROSS = 2 * np.mgrid[:SIDE, :SIDE]
RAMPS = np.stack([ACROSS, DOWN, 0 * DOWN], axis=2).astype(np.uint8)
"""Red grows by 2 a column, green by 2 a row: a step's parameters can be read off its output."""


@pytest.mark.parametrize(
    ("step", "measure", "low", "high"),
    [
        (JitterCrop(0.6), lambda found: 1 - found.shape[0] / SIDE, 0, 0.6),
        (JitterCrop(0.6), lambda found: 1 - found.shape[1] / SIDE, 0, 0.6),
        (RandomZoom(0.6), lambda found: 1 - (found[50, 70, 0] - found[50, 30, 0]) / 80, 0, 0.6),
        (RandomZoom(0.6), lambda found: 1 - (found[70, 50, 1] - found[30, 50, 1]) / 80, 0, 0.6),
        # Along a row of a picture turned clockwise, green falls by the sine and red grows by the cosine.
        (
            RandomRotate(90.0),
            lambda found: math.degrees(math.atan2(*(found[50, 30] - found[50, 70])[[1, 0]] * (1, -1))),
            -90,
            90,
        ),
    ],
)
def test_real_draws_fill_their_bounds_and_stay_within(step, measure, low, high):
    image = Image.fromarray(RAMPS)
    found = [np.asarray(transformed(image, step, chance_of(seed, 1, 0)), int) for seed in range(400)]
    values = np.array([measure(each) for each in found])
    margin = 0.03 * (high - low)  # whole pixels and whole grey levels
    assert low - margin < values.min() < low + margin
    assert high - margin < values.max() < high + margin
    assert abs(values.mean() - (low + high) / 2) < 2 * margin


@pytest.mark.parametrize("step", [RandomHorizontalFlip, RandomVerticalFlip])
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_flips_are_as_frequent_as_said(step, probability):
    image = Image.fromarray(RAMPS)
    flipped = [
        transformed(image, step(probability), chance_of(seed, 1, 0)) is not image for seed in range(400)
    ]
    assert abs(np.mean(flipped) - probability) < 4 * math.sqrt(probability * (1 - probability) / 400) + 1e-9


def test_jitter_crop_draws_for_each_direction():
    image = Image.fromarray(RAMPS)
    sizes = [transformed(image, JitterCrop(0.6), chance_of(seed, 1, 0)).size for seed in range(400)]
    assert abs(np.corrcoef(np.array(sizes).T)[0, 1]) < 0.2


def test_a_photos_numbers_follow_from_seed_epoch_and_index_alone():
    def numbers(*start):
        return tuple(chance_of(*start).random(4))

    starts = [(seed, epoch, photo) for seed in (0, 7) for epoch in (1, 2) for photo in (0, 1)]
    assert len({numbers(*start) for start in starts}) == len(starts)
    assert numbers(7, 2, 1) == numbers(7, 2, 1)
    numbers(2**63 - 1, 10**6, 10**7)


@pytest.mark.parametrize("start", [(0, 1, 0), (7, 3, 0), (2**40, 2, 0)])
def test_the_numbers_are_not_the_shuffles(start):
    shuffle = np.random.default_rng(start[:2])
    assert not np.array_equal(chance_of(*start).random(8), shuffle.random(8))


# --- In the decoder -------------------------------------------------------------------------------------

PHOTO = Path("photo.png")
STEPS = (JitterCrop(0.4), Resize(17, 11), *RANDOM[1:], Rotate(5.0))


@pytest.fixture
def photo():
    Image.fromarray(PIXELS).save(PHOTO)


def test_steps_act_and_draw_in_the_order_of_the_list(photo):
    found = decoder(11, 17, 3, STEPS)(PHOTO, chance_of(3, 2, 1))
    numbers = list(chance_of(3, 2, 1).random(6))
    x, y = int(0.4 * numbers[0] * 17 / 2), int(0.4 * numbers[1] * 11 / 2)
    image = Image.fromarray(PIXELS[y : 11 - y, x : 17 - x]).resize((17, 11), Image.Resampling.BILINEAR)
    expected = np.asarray(image)
    for step, number in zip(RANDOM[1:], numbers[2:], strict=True):
        expected = after(step, number, pixels=expected)
    np.testing.assert_array_equal(found, after(Rotate(5.0), pixels=expected))


def test_a_probability_does_not_move_the_draws_behind_it(photo):
    numbers = []
    for probability in (0.0, 1.0):
        steps = (RandomHorizontalFlip(probability), RandomVerticalFlip(0.5))
        pixels = [decoder(11, 17, 3, steps)(PHOTO, chance_of(0, epoch, 0)) for epoch in range(20)]
        first_rows = [{tuple(pixel) for pixel in each[0]} for each in pixels]
        numbers.append([row == {tuple(pixel) for pixel in PIXELS[0]} for row in first_rows])
    assert numbers[0] == numbers[1]
    assert 0 < sum(numbers[0]) < 20


def test_the_same_epoch_gives_the_same_pixels_and_another_epoch_others(photo):
    decode = decoder(11, 17, 3, STEPS)
    first = decode(PHOTO, chance_of(0, 1, 5))
    np.testing.assert_array_equal(decode(PHOTO, chance_of(0, 1, 5)), first)
    for other in ((0, 2, 5), (0, 1, 6), (1, 1, 5)):
        assert not np.array_equal(decode(PHOTO, chance_of(*other)), first)


def test_evaluation_sees_the_deterministic_steps_alone(photo):
    steps = (JitterCrop(0.5), Resize(15, 9), *RANDOM[1:], CenterCrop(13, 7))
    plain = decoder(7, 13, 3, (Resize(15, 9), CenterCrop(13, 7)))(PHOTO)
    np.testing.assert_array_equal(decoder(7, 13, 3, steps)(PHOTO), plain)
    turned = decoder(11, 17, 3, (Rotate(20.0),))
    np.testing.assert_array_equal(turned(PHOTO), after(Rotate(20.0)))


def test_grayscale(photo):
    found = decoder(11, 17, 1, STEPS)(PHOTO, chance_of(0, 1, 0))
    assert (found.dtype, found.shape) == (np.uint8, (11, 17, 1))


@pytest.mark.parametrize("step", [*RANDOM[1:], Rotate(30.0)])
def test_what_keeps_the_size_needs_no_resize(photo, step):
    assert decoder(11, 17, 3, (step,))(PHOTO, chance_of(0, 1, 0)).shape == (11, 17, 3)
    with pytest.raises(ImageError, match=r"photo\.png: 17 x 11 pixels, but the network takes 16 x 10"):
        decoder(10, 16, 3, (step,))(PHOTO, chance_of(0, 1, 0))


@pytest.mark.parametrize(
    "steps",
    [
        (JitterCrop(0.2),),
        (Resize(17, 11), JitterCrop(0.2)),
        (Resize(17, 11), JitterCrop(0.2), RandomZoom(0.1)),
        (Resize(20, 20), JitterCrop(0.2), CenterCrop(17, 11)),
        (JitterCrop(0.2), RandomRotate(9.0), CenterCrop(17, 11), Resize(17, 11)),
    ],
)
def test_a_jitter_crop_without_a_resize_after_it_is_refused_at_once(steps):
    with pytest.raises(ConfigError, match=r"'jitter_crop': 0\.2.* another size each time") as caught:
        decoder(11, 17, 3, steps)
    assert '{"resize": [17, 11]}' in str(caught.value)


def test_jitter_crops_before_a_resize_are_fine(photo):
    steps = (JitterCrop(0.2), JitterCrop(0.2), Resize(20, 20), CenterCrop(17, 11), RandomZoom(0.1))
    assert decoder(11, 17, 3, steps)(PHOTO, chance_of(0, 1, 0)).shape == (11, 17, 3)


def test_the_end_size_counts_behind_steps_that_keep_it():
    with pytest.raises(ConfigError, match=r"end at 20 x 20 pixels .* takes 17 x 11"):
        decoder(11, 17, 3, (Resize(20, 20), RandomZoom(0.1), Rotate(1.0)))
