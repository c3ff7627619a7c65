"""Parts of photos: which pixels they are, against plain Pillow; each photo is decoded once."""

import pickle
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps

from birdsonnx.config.transforms import CenterCrop, ConvertColor, Resize, ResizeShorter, Transform
from birdsonnx.images import decoding
from birdsonnx.images.crop_list import CropList
from birdsonnx.images.crops import MOST_RUNS, Box, Crop, Cutting, decode_runs, pieces
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.units import Pieces

TIGHT = Cutting(0.0, square=False)
SIDES = st.floats(0, 1)


def crop(box: Box, cutting: Cutting = TIGHT, path: Path = Path("a.jpg"), number: int = 0) -> Crop:
    return Crop(path, f"{path.name}/{number}", box=box, cutting=cutting)


def whole_photos(crops: Sequence[Crop]) -> list[range]:
    """The positions of each photo's crops."""
    counts = [sum(1 for _ in members) for _, members in groupby(crops, lambda each: each.path)]
    return [range(start, stop) for start, stop in pairwise(np.cumsum([0, *counts]).tolist())]


def decoded(decode: Decoder, crops: list[Crop], per_run: int = 4) -> np.ndarray:
    """The pixels of all crops; none may be refused."""
    runs = list(decode_runs(decode, crops, whole_photos(crops), per_run))
    assert not any(refused for _, _, refused in runs)
    assert [index for _, good, _ in runs for index in good] == list(range(len(crops)))
    return np.concatenate([pixels.copy() for pixels, _, _ in runs])


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4))


# The region ---------------------------------------------------------------------------------------------


def test_a_box_is_as_the_format_has_it():
    assert crop(Box(0.25, 0.5, 0.5, 0.25)).region(200, 100) == (50, 50, 150, 75)


def test_padding_is_a_share_of_the_longer_side_on_every_side():
    # 80 x 40 pixels at (60, 30); 0.25 of 80 are 20.
    assert crop(Box(0.3, 0.3, 0.4, 0.4), Cutting(0.25, False)).region(200, 100) == (40, 10, 160, 90)


def test_what_reaches_over_the_edge_is_cut_off():
    assert crop(Box(0.0, 0.0, 0.4, 0.4), Cutting(0.25, False)).region(200, 100) == (0, 0, 100, 60)


def test_a_square_grows_round_the_middle():
    assert crop(Box(0.3, 0.3, 0.4, 0.4), Cutting(0.0, True)).region(200, 100) == (60, 10, 140, 90)


def test_a_square_at_the_edge_is_moved_inwards():
    assert crop(Box(0.3, 0.0, 0.4, 0.2), Cutting(0.0, True)).region(200, 100) == (60, 0, 140, 80)
    assert crop(Box(0.3, 0.8, 0.4, 0.2), Cutting(0.0, True)).region(200, 100) == (60, 20, 140, 100)


def test_a_square_longer_than_the_photo_is_as_long_as_that():
    assert crop(Box(0.1, 0.4, 0.8, 0.2), Cutting(0.0, True)).region(200, 100) == (20, 0, 180, 100)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(1, 500), st.integers(1, 500), st.floats(0, 1), st.booleans())
def test_every_region_lies_in_the_photo_and_holds_the_box(x, y, w, h, width, height, padding, square):
    box = Box(x, y, min(w, 1 - x), min(h, 1 - y))
    left, top, right, bottom = crop(box, Cutting(padding, square)).region(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left - 1 <= x * width
    assert right + 1 >= (x + box.width) * width
    assert top - 1 <= y * height
    assert bottom + 1 >= (y + box.height) * height
    if square and max(right - left, bottom - top) < min(width, height):
        assert abs((right - left) - (bottom - top)) <= 1


@given(SIDES, SIDES, st.floats(0, 0.01), st.integers(1, 300))
def test_a_box_over_the_edge_is_cut_off(x, y, over, side):
    left, top, right, bottom = crop(Box(-over, y, x + over, 1 - y + over)).region(side, side)
    assert (left, bottom) == (0, side)
    # Within what halves and sums do to a share that lies between two pixels.
    assert abs(right - max(x * side, 1)) <= 0.5 + 1e-9
    assert abs(top - min(y * side, side - 1)) <= 0.5 + 1e-9


# The pixels ---------------------------------------------------------------------------------------------

BOXES = (
    Box(0.1, 0.2, 0.3, 0.25),
    Box(0.0, 0.0, 1.0, 1.0),
    Box(0.71, 0.4, 0.29, 0.6),
    Box(0.5, 0.5, 0.02, 0.04),
)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("cutting", [TIGHT, Cutting(0.1, True)])
@pytest.mark.parametrize(
    ("transforms", "mode"),
    [
        ((Resize(32, 32),), "RGB"),
        ((ResizeShorter(40), CenterCrop(32, 32)), "RGB"),
        ((ConvertColor("RGB2GRAY"), Resize(32, 32)), "RGB"),
        (None, "L"),
    ],
    ids=["resize", "shorter", "gray", "one channel"],
)
def test_a_crop_is_what_the_transforms_make_of_it_as_a_photo(suffix, cutting, transforms, mode):
    path = Path(f"a.{suffix}")
    picture(150, 110).save(path)
    channels = 1 if mode == "L" or (transforms and isinstance(transforms[0], ConvertColor)) else 3
    decode = decoder(32, 32, channels, transforms)
    crops = [crop(box, cutting, path, number) for number, box in enumerate(BOXES)]
    found = decoded(decode, crops)
    whole = Image.open(path).convert("RGB")
    for each, pixels in zip(crops, found, strict=True):
        whole.crop(each.region(150, 110)).save("part.png")
        np.testing.assert_array_equal(pixels, decode(Path("part.png")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_boxes_are_of_the_upright_photo(orientation, suffix):
    """MegaDetector turns photos upright before it looks at them."""
    exif = Image.Exif()
    exif[0x112] = orientation
    path = Path(f"a.{suffix}")
    picture(150, 110).save(path, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path))
    crops = [crop(box, TIGHT, path, number) for number, box in enumerate(BOXES)]
    for each, pixels in zip(crops, decoded(decoder(32, 32, 3, None), crops), strict=True):
        expected = upright.crop(each.region(*upright.size)).resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels, np.asarray(expected))


def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At which scales photos are decoded from now on."""
    seen: list[int] = []
    plain = decoding._array_of

    def noting(file, image, scale, mode):
        seen.append(scale)
        return plain(file, image, scale, mode)

    monkeypatch.setattr(decoding, "_array_of", noting)
    return seen


@pytest.mark.parametrize(
    ("side", "scale"), [(64, 1), (127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (640, 8)]
)
@pytest.mark.parametrize("transforms", [(Resize(32, 32),), (ResizeShorter(32), CenterCrop(32, 32))])
def test_a_photo_is_decoded_smaller_where_its_smallest_crop_allows(side, scale, transforms, monkeypatch):
    picture(640, 640).save("a.jpg", quality=95)
    seen = scales(monkeypatch)
    box = Box(0.0, 0.0, side / 640, side / 640)
    found = decoded(decoder(32, 32, 3, transforms), [crop(Box(0, 0, 1, 1)), crop(box, number=1)])
    assert seen == [scale]
    # As the whole file is: averages of averages are those of all pixels, up to rounding and JPEG's blocks.
    whole = Image.open("a.jpg").convert("RGB")
    for pixels, part in zip(found, (640, side), strict=True):
        exact = whole.crop((0, 0, part, part)).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(pixels.astype(int) - np.asarray(exact).astype(int)).max() <= (1 if scale == 1 else 6)


def test_a_smaller_picture_is_cut_where_the_box_is_and_not_at_the_next_pixel(monkeypatch):
    """A ramp shows the shift: to the next pixel of an eighth it would be 7 of the photo, or 3 levels."""
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (640, 1, 3))
    Image.fromarray(ramp).save("a.jpg", quality=100)
    seen = scales(monkeypatch)
    part = crop(Box(39 / 640, 0.0, 513 / 640, 513 / 640))
    [pixels] = decoded(decoder(32, 32, 3, None), [part])
    assert seen == [8]
    exact = Image.fromarray(ramp).crop(part.region(640, 640)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(pixels.astype(int) - np.asarray(exact).astype(int)).max() <= 1


# Runs ---------------------------------------------------------------------------------------------------


def make_photos(counts: list[int]) -> list[Crop]:
    """Photos with so many crops each."""
    generator = np.random.default_rng(5)
    crops = []
    for photo, count in enumerate(counts):
        path = Path(f"{photo}.jpg")
        picture(90, 70, photo).save(path)
        for number in range(count):
            x, y = generator.random(2) * 0.6
            crops.append(crop(Box(float(x), float(y), 0.3, 0.4), Cutting(0.1), path, number))
    return crops


@pytest.mark.parametrize("per_run", [1, 3, 4, 64])
def test_each_photo_is_decoded_once_whatever_the_runs_are(per_run, monkeypatch):
    crops = make_photos([1, 5, 2, 13, 3])
    expected = np.concatenate([decoded(decoder(32, 32, 3, None), [each]) for each in crops])
    read: Counter[Path] = Counter()
    plain = decoding.opened

    def noting(source):
        read[source] += 1
        return plain(source)

    monkeypatch.setattr(decoding, "opened", noting)
    np.testing.assert_array_equal(decoded(decoder(32, 32, 3, None), crops, per_run), expected)
    assert set(read.values()) == {1}
    assert len(read) == 5


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 9))
def test_pieces_are_whole_photos_that_fill_their_runs(counts, per_run):
    stops = np.cumsum([0, *counts]).tolist()
    groups = [range(start, stop) for start, stop in pairwise(stops)]
    found = list(pieces(groups, per_run))
    assert [group for piece in found for group in piece] == groups
    for piece in found[:-1]:
        crops = sum(map(len, piece))
        assert crops % per_run == 0 or crops >= MOST_RUNS * per_run
        assert sum(map(len, piece[:-1])) < MOST_RUNS * per_run


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 9))
def test_a_list_of_crops_is_those_that_were_put_in(counts, per_run):
    photos = [Photo(Path(f"card/{number}.jpg"), f"{number}.jpg") for number in range(len(counts))]
    crops, expected = CropList(photos, TIGHT), list[Crop]()
    for number, count in enumerate(counts):
        for place in range(1, count + 1):
            box = Box(place / 20, 0.1, 0.3, number / 50)
            crops.append(number, place, box)
            expected.append(Crop(photos[number].path, f"{number}.jpg/{place}", box=box, cutting=TIGHT))
    assert list(crops) == expected
    assert list(pickle.loads(pickle.dumps(crops))) == expected  # other ranks get it so
    groups = whole_photos(expected)
    assert list(crops.whole_photos()) == groups

    cut, plain = Pieces(crops, per_run), list(pieces(groups, per_run))
    assert [cut[number] for number in range(len(cut))] == plain
    for first, last in pairwise(range(len(plain) + 1)):
        assert list(cut.positions(range(first, last))) == [at for group in plain[first] for at in group]


def test_memory_is_that_of_one_photo_and_one_run(monkeypatch):
    """600 boxes, 4 at a time: the arrays that crops are decoded into hold 4."""
    crops = make_photos([600])
    runs = decode_runs(decoder(32, 32, 3, None), crops, whole_photos(crops), 4)
    assert {len(pixels) for pixels, _, _ in runs} == {4}


def test_a_photo_that_cannot_be_decoded_is_refused_for_each_of_its_crops():
    crops = make_photos([2, 2])
    Path("0.jpg").write_bytes(Path("0.jpg").read_bytes()[:900])
    [(pixels, good, refused)] = decode_runs(decoder(32, 32, 3, None), crops, whole_photos(crops), 4)
    assert (len(pixels), good, [index for index, _ in refused]) == (2, [2, 3], [0, 1])
    assert len({reason for _, reason in refused}) == 1
    assert refused[0][1].startswith("0.jpg: cannot be decoded")


def test_a_crop_that_the_transforms_refuse_is_named():
    transforms: tuple[Transform, ...] = (CenterCrop(32, 32),)
    picture(90, 70).save("a.png")
    path = Path("a.png")
    crops = [crop(Box(0, 0, 0.1, 0.1), TIGHT, path, 3), crop(Box(0, 0, 0.9, 0.9), TIGHT, path, 7)]
    [(_, good, refused)] = decode_runs(decoder(32, 32, 3, transforms), crops, whole_photos(crops), 4)
    assert good == [1]
    assert refused[0][1].startswith("a.png: the box 3: 9 x 7 pixels are too few for center_crop")
