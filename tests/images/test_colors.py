"""Conversions of colours against OpenCV itself, and against its published formulas where it is not there."""

import colorsys
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from birdsonnx.config.color_codes import COLOR_CODES
from birdsonnx.config.transforms import ConvertColor, Resize
from birdsonnx.errors import InstallationError
from birdsonnx.images.colors import Pixels, converted, is_own, opencv_version

RANDOM = np.random.default_rng(0)
PICTURE = np.concatenate(
    [
        RANDOM.integers(0, 256, (60, 80, 3), np.uint8),
        RANDOM.integers(0, 4, (20, 80, 3), np.uint8),  # nearly black: small differences, large hues
        RANDOM.integers(252, 256, (20, 80, 3), np.uint8),
        np.repeat(RANDOM.integers(0, 256, (20, 80, 1), np.uint8), 3, axis=2),
    ]
)
OWN = [code for code in COLOR_CODES if is_own(ConvertColor(code))]
HUES = {"HSV": 180, "HSV_FULL": 256, "HLS": 180, "HLS_FULL": 256}


def after(code: str, pixels: Pixels = PICTURE) -> Pixels:
    source = np.ascontiguousarray(pixels[..., 0]) if COLOR_CODES[code][0] == "GRAY" else pixels
    return np.asarray(converted(Image.fromarray(source), ConvertColor(code)))


def distance(found: np.ndarray, expected: np.ndarray, space: str) -> np.ndarray:
    """In levels; hues lie on a circle."""
    levels = np.abs(found.astype(int) - expected.astype(int))
    if space in HUES:
        levels[..., 0] = np.minimum(levels[..., 0], HUES[space] - levels[..., 0])
    return levels


@pytest.mark.parametrize("code", COLOR_CODES)
def test_every_conversion_is_opencvs_within_a_level(code):
    cv2 = pytest.importorskip("cv2")
    source, target = COLOR_CODES[code]
    pixels = PICTURE[..., 0].copy() if source == "GRAY" else PICTURE
    if source in HUES:
        pixels = (pixels % (HUES[source], 256, 256)).astype(np.uint8)
    expected = cv2.cvtColor(pixels, getattr(cv2, f"COLOR_{code}"))
    found = after(code, pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2))
    assert (found.dtype, found.shape) == (np.uint8, expected.shape)
    levels = distance(found, expected, target)
    assert levels.max() <= (1 if code in OWN else 0)
    assert (levels > 0).mean() < 0.02


def test_these_need_no_opencv():
    assert set(OWN) == {
        *("RGB2BGR", "BGR2RGB", "GRAY2RGB", "GRAY2BGR"),
        *(f"{order}2{space}" for order in ("RGB", "BGR") for space in ("GRAY", "HSV", "HSV_FULL", "YCrCb")),
    }


def test_the_order_of_channels():
    np.testing.assert_array_equal(after("RGB2BGR"), PICTURE[..., ::-1])
    np.testing.assert_array_equal(after("BGR2RGB"), PICTURE[..., ::-1])
    for code in ("GRAY2RGB", "GRAY2BGR"):
        np.testing.assert_array_equal(after(code), np.repeat(PICTURE[..., :1], 3, axis=2))


@pytest.mark.parametrize(("code", "hues"), [("RGB2HSV", 180), ("RGB2HSV_FULL", 256)])
def test_hue_saturation_and_value_by_the_formula(code, hues):
    found = after(code)[::7, ::7]
    expected = [
        [colorsys.rgb_to_hsv(*(pixel / 255 for pixel in map(int, pixels))) for pixels in row]
        for row in PICTURE[::7, ::7]
    ]
    scaled = np.rint(np.array(expected) * (hues, 255, 255)) % (hues, 256, 256)
    assert distance(found, scaled, code[4:]).max() <= 1


def test_gray_and_ycrcb_by_the_formula():
    red, green, blue = np.moveaxis(PICTURE.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(after("RGB2GRAY") - luma).max() <= 0.51
    expected = np.stack([luma, (red - luma) * 0.713 + 128, (blue - luma) * 0.564 + 128], axis=2)
    assert np.abs(after("RGB2YCrCb") - np.clip(expected, 0, 255)).max() <= 1


@pytest.mark.parametrize("code", ["BGR2GRAY", "BGR2HSV", "BGR2YCrCb"])
def test_from_bgr_is_from_rgb_in_the_other_order(code):
    np.testing.assert_array_equal(after(code, PICTURE[..., ::-1].copy()), after(code.replace("BGR", "RGB")))


def test_without_opencv_what_needs_it_is_refused_and_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert opencv_version([Resize(8, 8), *(ConvertColor(code) for code in OWN)]) == ""
    with pytest.raises(
        InstallationError, match=r"RGB2Lab needs OpenCV: pip install 'opencv-python-headless<6"
    ):
        opencv_version([Resize(8, 8), ConvertColor("RGB2Lab")])


def test_opencv_is_imported_only_where_it_is_needed():
    code = (
        "import sys\n"
        "from birdsonnx.config.transforms import ConvertColor\n"
        "from birdsonnx.images.decoding import decoder\n"
        "decoder(8, 8, 3, (ConvertColor('RGB2HSV'),))\n"
        "print('cv2' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
