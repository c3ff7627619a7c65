"""Which files are photos. What each format begins with is not asked of a table: Pillow writes the files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.errors import DataError, ImageError
from birdsonnx.images import files, photo_file
from birdsonnx.images.decoding import decoder
from birdsonnx.images.files import is_photo_by_content, photos_below
from birdsonnx.images.inputs import collect

PICTURE = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))


@pytest.mark.parametrize("suffix", sorted(files.SUFFIXES))
def test_every_suffix_is_decoded(suffix):
    kind = Image.registered_extensions()[suffix]
    PICTURE.save(f"a{suffix.upper()}", format="JPEG" if kind == "MPO" else kind)
    [photo] = collect(["."])
    np.testing.assert_allclose(decoder(16, 16, 3, None)(photo.path), 90, atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", ["photo", "IMG_1.JPG_original", "x.dat"])
def test_photos_are_known_by_content(kind, name):
    PICTURE.save(name, format=kind)
    assert [photo.name for photo in collect(["."])] == [name]


@pytest.mark.parametrize("content", [b"", b"BM is a text", b"P5 too", b"II*\0 as raw files", b"ftypheic"])
def test_what_is_no_photo(content):
    Path("x.raw").write_bytes(content)
    [listed] = photos_below(Path()).folders
    assert listed.others.names() == ["x.raw"]
    assert not is_photo_by_content(content)


def test_a_fifo_without_a_suffix_is_not_opened():
    os.mkfifo("pipe")
    [listed] = photos_below(Path()).folders
    assert listed.others.names() == ["pipe"]


class TestHeic:
    @pytest.fixture(autouse=True)
    def photo(self):
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(PICTURE).save("a.heic", quality=-1)
        Path("a.jpg").write_bytes(Path("a.heic").read_bytes())  # as phones and programs misname them

    @pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
    def test_it_is_read_with_the_extra(self, name):
        pixels = decoder(16, 16, 3, None)(Path(name))
        np.testing.assert_allclose(pixels, 90, atol=2)

    def test_without_the_extra_it_is_counted_and_said(self, monkeypatch):
        for module in (photo_file, files):
            monkeypatch.setattr(module, "reads_heif", lambda: False)
        lines = []
        assert [photo.name for photo in collect(["."], say=lines.append)] == ["a.jpg"]
        assert len(lines) == 1
        assert "1 HEIC photo (a.heic) left out; to read them, pip install" in lines[0]
        with pytest.raises(ImageError, match=r"a\.jpg: a HEIC photo; to read it, pip install"):
            decoder(16, 16, 3, None)(Path("a.jpg"))

    def test_a_folder_of_them_alone_says_what_to_do(self, monkeypatch):
        monkeypatch.setattr(files, "reads_heif", lambda: False)
        Path("a.jpg").unlink()
        with pytest.raises(DataError, match=f"its 1 HEIC photos: {files.how_to_read_heif()[:10]}"):
            collect(["."])
