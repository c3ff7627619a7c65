"""Thumbnails: the whole photo, upright, small, and no more of them than fit."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.reporting.console import Console
from birdsonnx.reporting.page.thumbnails import PREFIX, SMALL, thumbnail, thumbnails


def opened(source: str) -> Image.Image:
    assert source.startswith(PREFIX)
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix(PREFIX))))


def halves(path: Path, width: int, height: int, **options: object) -> Path:
    """A photo whose left half is red and whose right half is blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 230
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 200), (96, 48)), ((60, 90), (60, 90)), ((2000, 3), (96, 1))]
)
def test_they_keep_the_shape_and_are_never_enlarged(size, expected):
    assert opened(thumbnail(halves(Path("a.png"), *size), SMALL)).size == expected


def test_a_photo_taken_upright_stands_upright():
    turned = Image.Exif()
    turned[0x0112] = 6
    path = halves(Path("a.jpg"), 640, 320, exif=turned, quality=95)
    picture = opened(thumbnail(path, SMALL)).convert("RGB")
    assert picture.size == (48, 96)
    assert picture.getpixel((24, 10))[0] > 150
    assert picture.getpixel((24, 85))[2] > 150


def test_what_is_no_photo_has_none():
    Path("a.jpg").write_bytes(b"\xff\xd8\xff and no more")
    assert thumbnail(Path("a.jpg"), SMALL) == ""
    assert thumbnail(Path("nothing.jpg"), SMALL) == ""


def test_they_stop_at_their_number_and_at_their_bytes():
    paths = [halves(Path(f"{number}.png"), 96, 96) for number in range(9)]
    one = len(thumbnail(paths[0], SMALL))
    quiet = Console(speaks=False)
    assert len(thumbnails(paths, 4, 10**6, SMALL, 2, quiet)) == 4
    assert len(thumbnails(paths, 99, int(one * 3.5), SMALL, 2, quiet)) == 3
    found = thumbnails([paths[0], None, paths[1]], 99, 10**6, SMALL, 2, quiet)
    assert [bool(each) for each in found] == [True, False, True]
