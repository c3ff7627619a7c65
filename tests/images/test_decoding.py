"""Files to pixels, against plain Pillow and NumPy; what is damaged, oversized or foreign is refused."""

import contextlib
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from birdsonnx.config.transforms import (
    CenterCrop,
    ConvertColor,
    JitterCrop,
    Normalize,
    Resize,
    ResizeShorter,
    Rotate,
    Transform,
)
from birdsonnx.errors import ConfigError, ImageError
from birdsonnx.images import decoding
from birdsonnx.images.decoding import DRAFT, Pixels, decoder
from birdsonnx.images.photo_file import MAX_PIXELS

# As the module itself sets them; pytest puts its own filters in front.
pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\."),
]

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)
PHOTO = Path("photo")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(path: Path, mode: str = "RGB", size: tuple[int, int] | None = None) -> Pixels:
    """The oracle."""
    with Image.open(path) as image:
        converted = image.convert(mode)
    return np.asarray(converted if size is None else converted.resize(size, Image.Resampling.BILINEAR))


def refusal(height: int = 8, width: int = 8, transforms: Any = None) -> str:
    with pytest.raises(ImageError) as caught:
        decoder(height, width, 3, transforms)(PHOTO)
    assert str(caught.value).startswith("photo: ")
    return str(caught.value)


# --- Pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("RGB", "PPM"),
        ("RGB", "TIFF"),
        ("RGB", "WEBP"),
        ("RGB", "GIF"),
        ("1", "PNG"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("P", "BMP"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("RGBA", "TIFF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "JPEG"),
    ],
)
def test_every_kind_of_photo_as_pillow_reads_it(mode, kind):
    image = IMAGE.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    PHOTO.write_bytes(encoded(image, kind))
    for channels, target in ((3, "RGB"), (1, "L")):
        found = decoder(24, 32, channels, None)(PHOTO)
        assert (found.dtype, found.shape) == (np.uint8, (24, 32, channels))
        np.testing.assert_array_equal(found.squeeze(), plain(PHOTO, target, (32, 24)))


JPEG_KINDS = [
    {"quality": 95, "subsampling": "4:4:4"},
    {"quality": 75, "subsampling": "4:2:2"},
    {"quality": 30, "subsampling": "4:2:0"},
    {"progressive": True},
    {"restart_marker_blocks": 3},
    {"keep_rgb": True},
]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", JPEG_KINDS)
def test_a_jpeg_of_the_networks_size_is_decoded_without_pillow_to_the_same_bits(monkeypatch, mode, options):
    PHOTO.write_bytes(encoded(IMAGE.convert(mode), "JPEG", **options))
    expected = plain(PHOTO, mode).reshape(37, 53, -1)
    monkeypatch.setattr(Image.Image, "resize", None)
    monkeypatch.setattr(decoding, "_pixels_of", None)  # every picture of Pillow's passes there
    transforms = (Resize(53, 37), Normalize((0.0,), (1.0,)))
    np.testing.assert_array_equal(decoder(37, 53, expected.shape[-1], transforms)(PHOTO), expected)


@pytest.mark.parametrize(
    "transforms",
    [
        (Rotate(90.0), Rotate(-90.0)),
        (Resize(60, 40), CenterCrop(53, 37)),
        (ResizeShorter(60), CenterCrop(53, 37)),
    ],
)
def test_a_jpeg_of_the_networks_size_that_a_transform_changes(transforms):
    PHOTO.write_bytes(encoded(IMAGE, "JPEG"))
    assert (decoder(37, 53, 3, transforms)(PHOTO) != plain(PHOTO)).any()


def damaged(content: bytes, how: str, at: float = 0.5) -> bytes:
    """What a card with bad blocks, or a copy that broke off, makes of a JPEG; its end marker is there."""
    middle = int(len(content) * at)
    match how:
        case "cut":
            return content[:middle] + b"\xff\xd9"
        case "zeroed":
            return content[:middle] + bytes(512) + content[middle + 512 :]
        case "removed":
            return content[:middle] + content[middle + 1024 :]
        case "stray":
            return content[:-2] + bytes(8) + content[-2:]
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["cut", "removed", "stray"])
@pytest.mark.parametrize(
    ("kind", "transforms"),
    [
        ({}, (Resize(1024, 768),)),  # straight
        ({}, (CenterCrop(1024, 700),)),  # in full
        ({}, (Resize(48, 32),)),  # at a scale
        ({"progressive": True}, (Resize(48, 32),)),
        ({"mode": "L"}, (Resize(48, 32),)),
        ({"mode": "CMYK"}, (Resize(48, 32),)),
    ],
)
def test_a_damaged_jpeg_is_refused_on_every_path(kind, transforms, how):
    options = dict(kind)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    picture = Image.fromarray(noise).resize((1024, 768), Image.Resampling.BICUBIC)
    content = encoded(picture.convert(options.pop("mode", "RGB")), "JPEG", quality=90, **options)
    size = transforms[-1]
    read = decoder(size.height, size.width, 3, transforms)
    PHOTO.write_bytes(content)
    read(PHOTO)
    PHOTO.write_bytes(damaged(content, how))
    with pytest.raises(ImageError, match="photo: cannot be decoded"):
        read(PHOTO)
    with pytest.raises(ImageError, match="photo: cannot be decoded"):
        read.opened(PHOTO)


def test_most_jpegs_with_a_zeroed_block_are_refused():
    """By their coding alone a few are whole: libjpeg warns of 182 of 200 real photos with 512 zeros."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC), "JPEG")
    refused = 0
    for at in np.linspace(0.2, 0.9, 40):
        PHOTO.write_bytes(damaged(content, "zeroed", at))
        try:
            decoder(32, 32, 3, None)(PHOTO)
        except ImageError:
            refused += 1
    assert refused >= 30


def test_a_pipe_is_refused_at_once():
    os.mkfifo(PHOTO)
    assert "photo: no regular file" in refusal()
    PHOTO.unlink()
    PHOTO.mkdir()
    assert "photo: no regular file" in refusal()
    PHOTO.rmdir()
    PHOTO.symlink_to("/dev/zero")
    assert "photo: no regular file" in refusal()


def test_an_orientation_that_only_xmp_tells():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    PHOTO.write_bytes(encoded(IMAGE, "JPEG", xmp=xmp))
    np.testing.assert_array_equal(decoder(37, 53, 3, None)(PHOTO), plain(PHOTO)[::-1, ::-1])


def test_a_palette_with_transparency():
    PHOTO.write_bytes(encoded(IMAGE.quantize(16), "PNG", transparency=bytes(range(16))))
    np.testing.assert_array_equal(decoder(37, 53, 3, ())(PHOTO), plain(PHOTO))


def test_the_first_picture_of_an_animation():
    PHOTO.write_bytes(encoded(IMAGE, "GIF", save_all=True, append_images=[Image.new("RGB", IMAGE.size)]))
    np.testing.assert_array_equal(decoder(37, 53, 3, ())(PHOTO), plain(PHOTO))


@pytest.mark.parametrize("size", [(53, 37), (53, 20), (20, 37), (9, 7), (1, 1), (106, 74), (200, 11)])
def test_resize_is_pillows_antialiased_bilinear(size):
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    width, height = size
    expected = np.asarray(IMAGE.resize(size, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decoder(height, width, 3, (Resize(width, height),))(PHOTO), expected)
    np.testing.assert_array_equal(decoder(height, width, 3, None)(PHOTO), expected)


def shorter_to(side: int, image: Image.Image) -> Image.Image:
    """torchvision's published formula, which timm's `Resize(side)` is: `int(side * long / short)`."""
    short, long = sorted(image.size)
    size = (side, int(side * long / short))
    return image.resize(size if image.width <= image.height else size[::-1], Image.Resampling.BILINEAR)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", [1, 8, 19, 36, 37, 38, 90])
def test_resize_shorter_keeps_the_proportions(side, turned):
    image = IMAGE.transpose(Image.Transpose.ROTATE_90) if turned else IMAGE
    PHOTO.write_bytes(encoded(image, "PNG"))
    whole = shorter_to(side, image)
    assert min(whole.size) == side
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    expected = np.asarray(whole)[top : top + side, left : left + side]
    found = decoder(side, side, 3, (ResizeShorter(side), CenterCrop(side, side)))(PHOTO)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("side", [32, 200, 224, 255, 4000])
def test_sides_are_rounded_as_torchvision_rounds_them(side):
    generator = np.random.default_rng(side)
    for short, more in generator.integers(1, 9000, (500, 2)).tolist():
        expected = int(side * (short + more) / short)
        assert ResizeShorter(side).size_of(short + more, short) == (expected, side)
        assert ResizeShorter(side).size_of(short, short + more) == (side, expected)
    assert ResizeShorter(side).size_of(7, 7) == (side, side)


@pytest.mark.parametrize(
    ("height", "width"), [(37, 53), (36, 52), (35, 51), (20, 21), (21, 20), (1, 1), (37, 1)]
)
def test_center_crop_is_a_slice(height, width):
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    top, left = (37 - height) // 2, (53 - width) // 2
    found = decoder(height, width, 3, (CenterCrop(width, height),))(PHOTO)
    np.testing.assert_array_equal(found, PIXELS[top : top + height, left : left + width])


def test_transforms_act_in_the_order_given():
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    resized = np.asarray(IMAGE.resize((30, 24), Image.Resampling.BILINEAR))
    found = decoder(12, 16, 3, (Resize(30, 24), CenterCrop(16, 12)))(PHOTO)
    np.testing.assert_array_equal(found, resized[6:18, 7:23])
    cropped = Image.fromarray(PIXELS[6:30, 11:41])
    found = decoder(12, 16, 3, (CenterCrop(30, 24), Resize(16, 12)))(PHOTO)
    np.testing.assert_array_equal(found, np.asarray(cropped.resize((16, 12), Image.Resampling.BILINEAR)))


def test_normalize_changes_no_pixel():
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    found = decoder(37, 53, 3, (Normalize((0.5,), (0.1,)),))(PHOTO)
    np.testing.assert_array_equal(found, PIXELS)


UPRIGHT = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    with Image.open(io.BytesIO(encoded(IMAGE, kind, **options))) as image:
        stored = np.asarray(image)
    PHOTO.write_bytes(encoded(IMAGE, kind, exif=exif, **options))
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(decoder(*expected.shape[:2], 3, ())(PHOTO), expected)


# --- Gray and other colours -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_gray_in_three_channels_is_pillows_gray_three_times(mode):
    PHOTO.write_bytes(encoded(IMAGE.convert(mode), "PNG"))
    steps = (Resize(32, 24), ConvertColor("GRAY2RGB"))
    for grayscale in (True, False):  # GRAY2RGB says itself what it starts from
        found = decoder(24, 32, 3, steps, grayscale)(PHOTO)
        np.testing.assert_array_equal(found, plain(PHOTO, "L", (32, 24))[..., None].repeat(3, 2))


def test_grayscale_for_a_network_of_one_channel_changes_nothing():
    PHOTO.write_bytes(encoded(IMAGE, "JPEG"))
    for transforms in (None, (Resize(32, 24),)):
        found = decoder(24, 32, 1, transforms, grayscale=True)(PHOTO)
        np.testing.assert_array_equal(found, decoder(24, 32, 1, transforms)(PHOTO))
        np.testing.assert_array_equal(found[..., 0], plain(PHOTO, "L", (32, 24)))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("BGR2RGB",), lambda rgb: rgb),  # what OpenCV reads as BGR is RGB here already
        (("RGB2BGR",), lambda rgb: rgb[..., ::-1]),
        (("RGB2BGR", "RGB2BGR"), lambda rgb: rgb[..., ::-1]),
        (("RGB2BGR", "BGR2RGB"), lambda rgb: rgb),
        (("RGB2BGR", "RGB2GRAY", "GRAY2BGR"), lambda rgb: np.asarray(Image.fromarray(rgb).convert("L"))),
        (("BGR2GRAY", "GRAY2RGB"), lambda rgb: np.asarray(Image.fromarray(rgb).convert("L"))),
    ],
)
def test_a_conversion_starts_from_the_colours_in_whichever_order_they_are(codes, expected):
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    found = decoder(37, 53, 3, tuple(map(ConvertColor, codes)))(PHOTO)
    wanted = expected(PIXELS)
    np.testing.assert_array_equal(found, wanted if wanted.ndim == 3 else wanted[..., None].repeat(3, 2))


def test_bgr2hsv_is_the_hue_of_the_photo():
    PHOTO.write_bytes(encoded(Image.new("RGB", (4, 4), (0, 0, 255)), "PNG"))
    for code in ("BGR2HSV", "RGB2HSV"):
        assert decoder(4, 4, 3, (ConvertColor(code),))(PHOTO)[0, 0].tolist() == [120, 255, 255]


def test_conversions_act_in_their_place():
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    gray = np.asarray(IMAGE.convert("L").resize((32, 24), Image.Resampling.BILINEAR))
    found = decoder(24, 32, 1, (ConvertColor("RGB2GRAY"), Resize(32, 24)))(PHOTO)
    np.testing.assert_array_equal(found[..., 0], gray)
    resized = np.asarray(IMAGE.resize((32, 24), Image.Resampling.BILINEAR).convert("L"))
    found = decoder(24, 32, 1, (Resize(32, 24), ConvertColor("RGB2GRAY")))(PHOTO)
    np.testing.assert_array_equal(found[..., 0], resized)
    assert not np.array_equal(gray, resized)


@pytest.mark.parametrize(
    ("channels", "codes", "grayscale", "said"),
    [
        (3, (), True, r"data\.grayscale: photos become 1 gray channel, but the network takes 3.*GRAY2RGB"),
        (3, ("RGB2GRAY",), False, r"end at 1 gray channel \(.*RGB2GRAY.*\), but the network takes 3"),
        (1, ("RGB2HSV",), False, r"end at 3 channels \(HSV\) \(.*RGB2HSV.*\), but the network takes 1"),
        (1, ("GRAY2RGB",), True, r"end at 3 channels \(RGB\)"),
        (
            3,
            ("RGB2HSV",),
            True,
            r"do not fit together: convert_color RGB2HSV takes RGB pixels, but they are GRAY",
        ),
    ],
)
def test_channels_that_are_not_the_networks_are_refused_at_once(channels, codes, grayscale, said):
    steps: tuple[Transform, ...] = (Resize(9, 8), *map(ConvertColor, codes))
    with pytest.raises(ConfigError, match=said):
        decoder(8, 9, channels, steps, grayscale)


# --- Large JPEGs ----------------------------------------------------------------------------------------


def large(height: int, width: int) -> Image.Image:
    """As smooth as a photo, with its noise, and with one bright corner."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([100 + 80 * np.sin(rows / wide + columns / (2 * wide)) for wide in (40, 60, 90)], 2)
    noise = np.random.default_rng(0).normal(0, 6, waves.shape)
    waves[: height // 8, : width // 8] = 250
    return Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))


LARGE = large(904, 1280)
LARGE_JPEG = encoded(LARGE, "JPEG", quality=92)
RESIZED = (Resize(64, 48),)


def without_draft(monkeypatch) -> None:
    monkeypatch.setattr(decoding, "DRAFT", 10**6)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (32, 32), (224, 224), (500, 20)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_nearly_what_a_full_decode_gives(monkeypatch, mode, width, height):
    """At the edge of the corner averaging twice is not averaging once; everywhere else it nearly is."""
    PHOTO.write_bytes(encoded(LARGE.convert(mode), "JPEG", quality=92))
    found = decoder(height, width, 3, (Resize(width, height),))(PHOTO).astype(int)
    without_draft(monkeypatch)
    full = decoder(height, width, 3, (Resize(width, height),))(PHOTO)
    np.testing.assert_array_equal(full, plain(PHOTO, "RGB", (width, height)))
    difference = np.abs(found - full)
    assert difference.mean() < 0.3
    assert np.percentile(difference, 99) <= 1
    assert difference.max() <= 8


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(897, 1273, (1273, 897)), (904, 1276, (319, 226)), (902, 1280, (640, 451)), (904, 1280, (160, 113))],
)
def test_only_scales_that_divide_both_sides_are_used(width, height, size):
    """Else the last block, partly filled, would become a whole pixel."""
    PHOTO.write_bytes(encoded(large(width, height), "JPEG", quality=92))
    assert decoder(32, 32, 3, None).opened(PHOTO).size == size


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (40, 56, (160, 113)),  # 1/8
        (56, 56, (160, 113)),
        (57, 56, (320, 226)),  # 1/8 would leave 113 rows, fewer than twice 57
        (112, 20, (320, 226)),
        (114, 20, (640, 452)),
        (20, 226, (640, 452)),
        (20, 227, (1280, 904)),
    ],
)
def test_how_far_a_large_jpeg_is_scaled(width, height, size):
    PHOTO.write_bytes(LARGE_JPEG)
    opened = decoder(height, width, 3, (Resize(width, height),)).opened(PHOTO)
    assert opened.size == size
    assert opened.size == LARGE.size or min(opened.size) >= DRAFT * max(width, height)


@pytest.mark.parametrize(
    ("side", "size"),
    [(56, (160, 113)), (57, (320, 226)), (113, (320, 226)), (114, (640, 452)), (227, (1280, 904))],
)
def test_how_far_a_large_jpeg_is_scaled_for_its_shorter_side(monkeypatch, side, size):
    PHOTO.write_bytes(LARGE_JPEG)
    decode = decoder(side, side, 3, (ResizeShorter(side), CenterCrop(side, side)))
    assert decode.opened(PHOTO).size == size
    found = decode(PHOTO).astype(int)
    without_draft(monkeypatch)
    assert np.abs(found - decode(PHOTO)).mean() < 0.3


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_large_jpeg_is_turned_before_its_shorter_side_counts(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    PHOTO.write_bytes(encoded(LARGE, "JPEG", quality=92, exif=exif))
    upright = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](np.asarray(LARGE))))
    whole = shorter_to(48, upright)
    left, top = (whole.width - 48) // 2, (whole.height - 40) // 2
    expected = np.asarray(whole)[top : top + 40, left : left + 48].astype(int)
    found = decoder(40, 48, 3, (ResizeShorter(48), CenterCrop(48, 40)))(PHOTO)
    assert np.abs(found - expected).mean() < 1.5


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_a_large_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    PHOTO.write_bytes(encoded(LARGE, "JPEG", quality=92, exif=exif))
    assert max(decoder(48, 64, 3, RESIZED).opened(PHOTO).size) == 320
    found = decoder(48, 64, 3, RESIZED)(PHOTO).astype(int)
    upright = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](np.asarray(LARGE))))
    expected = np.asarray(upright.resize((64, 48), Image.Resampling.BILINEAR))
    assert np.abs(found - expected).mean() < 1.5  # the JPEG itself is not the picture


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_large_photos_of_other_formats_are_decoded_fully(kind):
    PHOTO.write_bytes(encoded(LARGE, kind))
    expected = np.asarray(LARGE.resize((64, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decoder(48, 64, 3, RESIZED)(PHOTO), expected)


@pytest.mark.parametrize("transforms", [(CenterCrop(64, 48),), (CenterCrop(320, 240), Resize(64, 48)), ()])
def test_a_large_jpeg_is_decoded_fully_unless_a_resize_comes_first(transforms):
    PHOTO.write_bytes(LARGE_JPEG)
    opened = decoder(48, 64, 3, transforms).opened(PHOTO)
    np.testing.assert_array_equal(np.asarray(opened), plain(PHOTO))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_large_jpeg_is_refused(kept):
    PHOTO.write_bytes(LARGE_JPEG[: int(len(LARGE_JPEG) * kept)])
    refusal()


# --- Sizes ----------------------------------------------------------------------------------------------


def test_another_size_without_a_resize_is_refused_with_a_hint():
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    message = refusal(8, 9, ())
    assert "53 x 37 pixels, but the network takes 9 x 8" in message
    assert 'add {"resize": [9, 8]} to the transforms' in message


def test_a_photo_too_small_for_the_crop_is_refused_with_a_hint():
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    for width, height in ((54, 8), (8, 38)):
        message = refusal(height, width, (CenterCrop(width, height),))
        assert f"53 x 37 pixels are too few for center_crop {width} x {height}" in message


@pytest.mark.parametrize(
    "transforms",
    [
        (Resize(8, 9),),
        (CenterCrop(8, 9), Normalize((0.0,), (1.0,))),
        (Resize(9, 8), CenterCrop(8, 8)),
        (CenterCrop(9, 8), Resize(256, 256)),
    ],
)
def test_transforms_that_cannot_give_the_networks_size_are_refused_at_once(transforms):
    with pytest.raises(ConfigError, match=r"the transforms end at .* but the network takes 9 x 8"):
        decoder(8, 9, 3, transforms)


@pytest.mark.parametrize(
    ("transforms", "said"),
    [
        ((ResizeShorter(8),), 'put a center_crop after it: {"center_crop": [9, 8]}'),
        ((Resize(9, 8), ResizeShorter(8)), 'put a center_crop after it: {"center_crop": [9, 8]}'),
        ((ResizeShorter(7), CenterCrop(9, 8)), 'make that {"resize_shorter": 9} or more'),
        ((ResizeShorter(9), CenterCrop(8, 8)), r"end at 8 x 8 pixels .* takes 9 x 8"),
        ((ResizeShorter(9), JitterCrop(0.1), CenterCrop(9, 8)), r"put a resize after it, before"),
    ],
)
def test_a_resize_shorter_that_leaves_no_size_is_refused_at_once(transforms, said):
    with pytest.raises(ConfigError, match=re.escape(said) if "{" in said else said):
        decoder(8, 9, 3, transforms)


def test_what_may_follow_a_resize_shorter():
    PHOTO.write_bytes(encoded(IMAGE, "PNG"))
    for transforms in (
        (JitterCrop(0.5), ResizeShorter(12), CenterCrop(9, 8)),
        (ResizeShorter(12), Resize(9, 8)),
        (ResizeShorter(8), CenterCrop(9, 8)),  # enough of a photo that lies, as those of most cameras do
    ):
        assert decoder(8, 9, 3, transforms)(PHOTO).shape == (8, 9, 3)
    PHOTO.write_bytes(encoded(IMAGE.transpose(Image.Transpose.ROTATE_90), "PNG"))
    assert "8 x 11 pixels are too few for center_crop 9 x 8" in refusal(
        8, 9, (ResizeShorter(8), CenterCrop(9, 8))
    )


def test_a_strip_of_which_too_much_would_be_made_is_refused():
    PHOTO.write_bytes(encoded(Image.new("RGB", (3000, 2)), "PNG"))
    said = refusal(224, 224, (ResizeShorter(224), CenterCrop(224, 224)))
    assert "3000 x 2 pixels would become 336,000 x 224 by resize_shorter 224" in said


# --- Refusals -------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side", [16_385, 18_000, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_from_its_header(side):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    PHOTO.write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(100))))
    assert side * side > MAX_PIXELS
    assert f"than the {MAX_PIXELS:,} allowed" in refusal()


def test_a_photo_of_a_phone_of_200_megapixels_is_read():
    Image.new("L", (16_320, 12_240), 77).save("phone.jpg", quality=30)
    pixels = decoder(24, 32, 3, None)(Path("phone.jpg"))
    np.testing.assert_array_equal(pixels, np.full((24, 32, 3), 77))


@pytest.mark.parametrize(
    ("kind", "offset", "sides"),
    [
        ("GIF", 6, struct.pack("<HH", 65535, 65535)),
        ("BMP", 18, struct.pack("<ii", 30000, 30000)),
        ("PPM", 3, b"30000 30000"),
    ],
)
def test_bombs_of_other_formats(kind, offset, sides):
    content = bytearray(encoded(IMAGE, kind))
    content[offset : offset + (5 if kind == "PPM" else len(sides))] = sides
    PHOTO.write_bytes(content)
    assert f"than the {MAX_PIXELS:,} allowed" in refusal()


@pytest.mark.parametrize(
    ("image", "kind", "mode"),
    [
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG", "I;16"),
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "TIFF", "I;16"),
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PPM", "I"),
        (Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF", "I"),
        (Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF", "F"),
    ],
)
def test_deeper_than_8_bits_is_refused(image, kind, mode):
    PHOTO.write_bytes(encoded(image, kind))
    assert f"{mode} pixels (16 bits or floating point); save it with 8 bits" in refusal()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_photo_is_refused(kind, kept):
    content = encoded(IMAGE, kind)
    PHOTO.write_bytes(content[: int(len(content) * kept)])
    refusal()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
        encoded(IMAGE, "ICO"),
        encoded(IMAGE, "PDF"),
        encoded(IMAGE, "TGA"),
    ],
    ids=["empty", "text", "EPS", "ICO", "PDF", "TGA"],  # contents would be other names in each worker
)
def test_other_formats_are_refused(content):
    PHOTO.write_bytes(content)
    assert "not an image that can be read (JPEG, PNG, " in refusal()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: None, "no such file"),
        (lambda: PHOTO.symlink_to("nowhere"), "no such file (a broken link?)"),
        (lambda: PHOTO.symlink_to(PHOTO), "cannot be decoded"),
        (lambda: PHOTO.mkdir(), "no regular file"),
    ],
)
def test_paths_without_a_photo_are_refused(make, said):
    make()
    assert said in refusal()


# --- Anything at all ------------------------------------------------------------------------------------


def taken_or_refused(content: bytes) -> None:
    PHOTO.write_bytes(content)
    with contextlib.suppress(ImageError):
        found = decoder(8, 9, 3, None)(PHOTO)
        assert (found.dtype, found.shape) == (np.uint8, (8, 9, 3))


MAGIC = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM", b"P6 ", b"RIFF")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_random_bytes_are_taken_or_refused(magic, rest):
    taken_or_refused(magic + rest)


SMALL = IMAGE.resize((12, 10))
WHOLE = {
    "jpeg": encoded(SMALL, "JPEG"),
    "progressive": encoded(SMALL, "JPEG", progressive=True),
    "png": encoded(SMALL, "PNG"),
    "palette": encoded(SMALL.quantize(8), "PNG", transparency=0),
    "gif": encoded(SMALL, "GIF"),
    "tiff": encoded(SMALL, "TIFF"),
    "lzw": encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "deflate": encoded(SMALL, "TIFF", compression="tiff_adobe_deflate"),
    "webp": encoded(SMALL, "WEBP"),
    "bmp": encoded(SMALL, "BMP"),
}


@pytest.mark.parametrize("kind", WHOLE)
@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), min_size=1, max_size=4),
    near_the_start=st.booleans(),
)
def test_flipped_bytes_are_taken_or_refused(kind, flips, near_the_start):
    content = bytearray(WHOLE[kind])
    for position, change in flips:
        content[position % (60 if near_the_start else len(content))] ^= change
    taken_or_refused(bytes(content))


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_a_16_bit_color_png_is_refused_not_cut(color, channels):
    rows = (b"\0" + np.full(4 * channels, 40000, ">u2").tobytes()) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, color, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    PHOTO.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(ImageError, match="16 bits"):
        decoder(4, 4, 3, ())(PHOTO)


def test_a_16_bit_color_ppm_is_refused_not_cut():
    PHOTO.write_bytes(b"P6 4 4 65535\n" + np.full(48, 40000, ">u2").tobytes())
    with pytest.raises(ImageError, match="16 bits"):
        decoder(4, 4, 3, ())(PHOTO)


@pytest.mark.parametrize(("tag", "kind", "value"), [(0x10F, 11, b"\x3f\x80\0\0"), (0x100, 2, b"x\0\0\0")])
def test_damaged_exif_stops_nothing(tag, kind, value):
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHI4s", tag, kind, 1, value)
    exif += struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + bytes(4)
    Image.new("RGB", (4, 4), (9, 9, 9)).save(PHOTO, "JPEG", exif=exif)
    assert decoder(4, 4, 3, ())(PHOTO).shape == (4, 4, 3)
