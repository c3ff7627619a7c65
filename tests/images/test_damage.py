"""Damage that the decoders' own libraries pass over; and that odd but sound files are read."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.config.transforms import CenterCrop, Resize
from birdsonnx.errors import ImageError
from birdsonnx.images import damage
from birdsonnx.images.decoding import decoder
from tests.conftest import REAL_DATA, needs_real_data

PHOTO = Path("photo")
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
PICTURE = Image.fromarray(NOISE).resize((256, 192), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(content: bytes, transforms=None) -> str:
    PHOTO.write_bytes(content)
    with pytest.raises(ImageError, match="photo: ") as caught:
        decoder(192, 256, 3, transforms)(PHOTO)
    return str(caught.value)


def with_zeros(content: bytes, at: int, count: int = 512) -> bytes:
    return content[:at] + bytes(count) + content[at + count :]


# --- JPEG -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transforms", [(Resize(256, 192),), (CenterCrop(256, 192),)])
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"optimize": True, "quality": 90}, {"restart_marker_rows": 1}, {"mode": "CMYK"}],
)
@pytest.mark.parametrize("count", [64, 512])
def test_zeros_within_a_jpeg_are_refused_wherever_they_lie(transforms, options, count):
    """By libjpeg's warnings alone, 13 % of real photos became samples, all of them wrong in more than 5 %."""
    options = {"quality": 80, **options}
    content = encoded(PICTURE.convert(options.pop("mode", "RGB")), "JPEG", **options)
    start = content.index(b"\xff\xda") + 20
    for at in np.linspace(start, len(content) - count - 2, 30, dtype=int):
        refusal(with_zeros(content, at, count), transforms)


def test_zeros_outside_of_a_jpegs_pixels_are_no_damage():
    exif = Image.Exif()
    exif[0x010E] = "\0" * 2000
    content = encoded(PICTURE, "JPEG", exif=exif, comment=bytes(1000)) + bytes(5000)
    PHOTO.write_bytes(content)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    for transforms in ((Resize(256, 192),), (CenterCrop(256, 192),)):
        np.testing.assert_array_equal(decoder(192, 256, 3, transforms)(PHOTO), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {}])
def test_a_plain_background_is_no_damage(mode, options):
    """With codes made for it, nearly all of its bits are zeros."""
    picture = Image.new("RGB", (1024, 1024), "white")
    picture.paste(PICTURE, (700, 300))
    content = encoded(picture.convert(mode), "JPEG", quality=60, **options)
    assert damage.HOLE in content or not options
    PHOTO.write_bytes(content)
    assert decoder(64, 64, 3, None)(PHOTO).shape == (64, 64, 3)


def test_scans_without_end_are_refused():
    """A few bytes each, and each goes over the whole picture."""
    content = encoded(Image.new("L", (256, 192), 9), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2]
    refine = content[:last] + scan * damage.MOST_SCANS * 2 + content[-2:]
    assert "more than 100 scans" in refusal(refine)


def test_markers_after_a_jpeg_are_not_its_scans():
    """As in the film that some phones append."""
    PHOTO.write_bytes(encoded(PICTURE, "JPEG") + b"\xff\xda" * 500)
    assert decoder(192, 256, 3, None)(PHOTO).shape == (192, 256, 3)


# --- TIFF -----------------------------------------------------------------------------------------------

TIFF = {
    "deflate": {"compression": "tiff_adobe_deflate"},
    "JPEG": {"compression": "jpeg"},
    "LZW": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("compression", ["deflate", "JPEG", "LZW"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_tiff_with_zeros_in_its_strips_is_refused(compression, mode, capfd):
    content = encoded(PICTURE.convert(mode), "TIFF", **TIFF[compression])
    PHOTO.write_bytes(content)
    with Image.open(PHOTO) as image:
        offset, count = (image.tag_v2[tag][0] for tag in (273, 279))
        np.testing.assert_array_equal(decoder(192, 256, 3, ())(PHOTO), np.asarray(image.convert("RGB")))
    for at in np.linspace(offset + 700, offset + count - 600, 20, dtype=int):
        refusal(with_zeros(content, at), ())
    assert capfd.readouterr().err == "", "libtiff has a voice of its own"


@pytest.mark.parametrize("compression", ["deflate", "JPEG"])
def test_any_wrong_length_of_a_strip_is_refused(compression):
    content = encoded(PICTURE, "TIFF", **TIFF[compression])
    with Image.open(io.BytesIO(content)) as image:
        counts = image.tag_v2[279]
    raw = np.array(counts[:1], "<u4").tobytes()
    assert content.count(raw) == 1
    for length in (0, 1, counts[0] // 2, 2**31):
        refusal(content.replace(raw, np.array([length], "<u4").tobytes()), ())


def test_a_strip_that_unpacks_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(damage, "MAX_PIXELS", 10_000)
    content = encoded(Image.new("RGB", (256, 192)), "TIFF", **TIFF["deflate"])
    assert "more than the picture can have" in refusal(content, ())


# --- Decoders' own errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "GIF"])
def test_whatever_a_decoder_raises_is_a_refusal(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    content = encoded(PICTURE, kind)
    chance = random.Random(0)
    read = decoder(32, 32, 3, None)
    refused = 0
    for _ in range(30):
        damaged = bytearray(content)
        for _ in range(10):
            damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        PHOTO.write_bytes(damaged)
        try:
            read(PHOTO)
        except ImageError:
            refused += 1
    assert refused


def test_a_file_larger_than_any_photo_is_refused_unread():
    with PHOTO.open("wb") as file:
        file.write(encoded(PICTURE, "JPEG"))
        file.truncate(2**40)  # takes no room
    with pytest.raises(ImageError, match="larger than 2,147,483,648 bytes"):
        decoder(192, 256, 3, None)(PHOTO)


# --- Sound files ----------------------------------------------------------------------------------------


@needs_real_data
def test_no_real_photo_is_refused():
    read = decoder(8, 8, 3, (Resize(8, 8),))
    photos = sorted(REAL_DATA.rglob("*.jpg"))[::10]
    assert len(photos) > 100
    for path in photos:
        read(path)


@pytest.mark.parametrize("kept", ["quality", "quantization"])
def test_jpegs_with_tables_of_their_own(kept):
    coarse = [list(range(1, 65)), [255] * 64]
    options = {"quality": 1} if kept == "quality" else {"qtables": coarse}
    PHOTO.write_bytes(encoded(PICTURE, "JPEG", **options))
    assert decoder(192, 256, 3, None)(PHOTO).shape == (192, 256, 3)
