"""What headers say of photos: time, camera, place, size; and nothing where EXIF makes no sense."""

import random
import struct
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from birdsonnx.errors import ImageError
from birdsonnx.images.exif import Header, header_of, iso_time
from birdsonnx.images.files import reads_heif
from tests.shots import GPS, Base, exif_of, save

# Pillow's, which `photo_file` ignores; pytest forgets that.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

TIME = {Base.DateTimeOriginal: "2026:05:04 07:31:12"}
CAPE_TOWN = {
    GPS.GPSLatitudeRef: "S",
    GPS.GPSLatitude: (33.0, 55.0, 31.08),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (18.0, 25.0, 26.4),
    GPS.GPSAltitudeRef: b"\0",
    GPS.GPSAltitude: 25.5,
}
CAMERA = {Base.Make: "RECONYX", Base.Model: "HYPERFIRE 2"}


def header(
    main=None, details=None, place=None, name: str = "photo.jpg", size: tuple[int, int] = (40, 30)
) -> Header:
    return header_of(save(Image.new("RGB", size), name, exif_of(main, details, place)))


def time_of(**details: str) -> datetime | None:
    return header(details={Base[name]: text for name, text in details.items()}).time


# --- What cameras write ---------------------------------------------------------------------------------


FORMATS = ["photo.jpg", "photo.png", "photo.tif", "photo.webp", "photo.avif"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_the_same(name):
    found = header(CAMERA, {**TIME, Base.BodySerialNumber: "H600"}, CAPE_TOWN, name)
    assert (found.width, found.height) == (40, 30)
    assert found.time == datetime(2026, 5, 4, 7, 31, 12)
    assert (found.make, found.model, found.serial) == ("RECONYX", "HYPERFIRE 2", "H600")
    assert found.latitude == pytest.approx(-(33 + 55 / 60 + 31.08 / 3600), abs=1e-9)
    assert found.longitude == pytest.approx(18 + 25 / 60 + 26.4 / 3600, abs=1e-9)
    assert found.altitude_m == 25.5


@pytest.mark.skipif(not reads_heif(), reason="the heic extra is not installed")
def test_heic_tells_the_same():
    import pillow_heif

    pillow_heif.register_heif_opener()
    found = header(CAMERA, TIME, CAPE_TOWN, "photo.heic", (64, 48))
    assert (found.width, found.height, found.make) == (64, 48, "RECONYX")
    assert found.time == datetime(2026, 5, 4, 7, 31, 12)
    assert found.latitude == pytest.approx(-33.9253, abs=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_photo_without_exif_has_a_size(name):
    Image.new("RGB", (40, 30)).save(name)
    assert header_of(Path(name)) == Header(40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_photo(orientation):
    found = header({Base.Orientation: orientation})
    assert (found.width, found.height) == ((30, 40) if orientation >= 5 else (40, 30))


def test_exif_behind_the_pixels_of_a_png_is_found():
    save(Image.new("RGB", (40, 30)), "early.png", exif_of(CAMERA, TIME))
    chunks, content, place = [], Path("early.png").read_bytes(), 8
    while place < len(content):
        length = struct.unpack(">I", content[place : place + 4])[0]
        chunks.append(content[place : place + 12 + length])
        place += 12 + length
    late = [chunk for chunk in chunks if chunk[4:8] == b"eXIf"]
    assert len(late) == 1
    chunks = [chunk for chunk in chunks if chunk not in late]
    Path("late.png").write_bytes(content[:8] + b"".join([*chunks[:-1], *late, chunks[-1]]))
    assert header_of(Path("late.png")) == header_of(Path("early.png"))
    assert header_of(Path("late.png")).make == "RECONYX"


def test_a_png_whose_exif_is_not_behind_its_pixels_is_not_decoded(monkeypatch):
    from PIL import PngImagePlugin

    Image.new("RGB", (40, 30)).save("plain.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: pytest.fail("decoded"))
    assert header_of(Path("plain.png")) == Header(40, 30)


# --- Time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({}, "2026-05-04T07:31:12"),
        ({"SubsecTimeOriginal": "25"}, "2026-05-04T07:31:12.250"),
        ({"SubsecTimeOriginal": "250000000"}, "2026-05-04T07:31:12.250"),
        ({"SubsecTimeOriginal": "0"}, "2026-05-04T07:31:12"),
        ({"SubsecTimeOriginal": "  "}, "2026-05-04T07:31:12"),
        ({"SubsecTimeOriginal": "-5"}, "2026-05-04T07:31:12"),
        ({"SubsecTimeOriginal": "²"}, "2026-05-04T07:31:12"),
        ({"OffsetTimeOriginal": "+02:00"}, "2026-05-04T07:31:12+02:00"),
        ({"OffsetTimeOriginal": "-03:30", "SubsecTimeOriginal": "5"}, "2026-05-04T07:31:12.500-03:30"),
        ({"OffsetTimeOriginal": "+24:00"}, "2026-05-04T07:31:12"),
        ({"OffsetTimeOriginal": "+2:00"}, "2026-05-04T07:31:12"),
        ({"OffsetTimeOriginal": "   :  "}, "2026-05-04T07:31:12"),
    ],
)
def test_times_as_iso_8601(details, said):
    time = time_of(DateTimeOriginal="2026:05:04 07:31:12", **details)
    assert time is not None
    assert iso_time(time) == said
    assert datetime.fromisoformat(said) == time


def test_an_offset_is_kept():
    time = time_of(DateTimeOriginal="2026:05:04 07:31:12", OffsetTimeOriginal="-03:30")
    assert time == datetime(2026, 5, 4, 7, 31, 12, tzinfo=timezone(-timedelta(hours=3, minutes=30)))


@pytest.mark.parametrize(
    "text",
    [
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "2026:13:04 07:31:12",
        "2026:05:04",
        "2026:05:04 24:00:00",
        "٢٠٢٦:05:04 07:31:12",
        "",
        "=1+1",
    ],
)
def test_what_is_no_time_is_none(text):
    assert time_of(DateTimeOriginal=text) is None


def test_the_time_of_an_editing_is_not_that_of_the_photo():
    assert header({Base.DateTime: "2026:05:04 07:31:12"}).time is None


# --- Camera ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Canon\0\0\0", "Canon"),
        ("Canon\0rest of another", "Canon"),
        ("  two \n lines\r\x07 ", "two lines"),
        ("\x1b[2Jred", "[2Jred"),
        ("‮reversed", "reversed"),
        ("=HYPERLINK(1)", "=HYPERLINK(1)"),
        ("x" * 5000, "x" * 200),
        ("Böhm", "Böhm"),
        (b"bytes", "bytes"),
        (17, "17"),
        ((1, 2), ""),
    ],
)
def test_texts_are_one_clean_line(written, read):
    from birdsonnx.images.exif import _text

    assert _text(written) == read


# --- Place ----------------------------------------------------------------------------------------------


def place_of(**changes) -> tuple[float | None, float | None, float | None]:
    place = {**CAPE_TOWN, **{GPS[name]: value for name, value in changes.items()}}
    found = header(place={tag: value for tag, value in place.items() if value is not None})
    return found.latitude, found.longitude, found.altitude_m


SIGNS = [("N", "E", 1, 1), ("S", "E", -1, 1), ("N", "W", 1, -1), ("S", "W", -1, -1), ("s", "w\0", -1, -1)]


@pytest.mark.parametrize(("north", "east", "latitude", "longitude"), SIGNS)
def test_sides_are_signs(north, east, latitude, longitude):
    found = place_of(GPSLatitudeRef=north, GPSLongitudeRef=east)
    assert found[0] == pytest.approx(latitude * 33.9253, abs=1e-4)
    assert found[1] == pytest.approx(longitude * 18.424, abs=1e-4)


@pytest.mark.parametrize(
    ("reference", "altitude"), [(b"\0", 25.5), (b"\1", -25.5), (b"\2", 25.5), (b"\3", -25.5), (None, 25.5)]
)
def test_altitudes_below_the_sea_are_negative(reference, altitude):
    assert place_of(GPSAltitudeRef=reference)[2] == altitude


def test_degrees_alone_and_with_minutes():
    assert place_of(GPSLatitude=(33.5,))[0] == -33.5
    assert place_of(GPSLatitude=(33.0, 30.0))[0] == -33.5


ZERO_BY_ZERO = IFDRational(0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"GPSLatitude": (ZERO_BY_ZERO, ZERO_BY_ZERO, ZERO_BY_ZERO)},
        {"GPSLongitude": (18.0, ZERO_BY_ZERO, 0.0)},
        {"GPSLatitude": (IFDRational(33, 0), 0.0, 0.0)},
        {"GPSLatitude": (90.0, 0.0, 1.0)},
        {"GPSLongitude": (180.0, 0.0, 1.0)},
        {"GPSLatitude": (33.0, 61.0, 0.0)},
        {"GPSLatitude": (1.0, 2.0, 3.0, 4.0)},
        {"GPSLatitude": None},
        {"GPSLatitudeRef": None},
        {"GPSLongitudeRef": "N"},
        {"GPSLatitudeRef": "NS"},
        {"GPSLongitudeRef": ""},
    ],
)
def test_half_a_place_is_none(changes):
    assert place_of(**changes)[:2] == (None, None)


def test_the_ends_of_the_earth():
    found = place_of(GPSLatitude=(90.0, 0.0, 0.0), GPSLongitude=(180.0, 0.0, 0.0))
    assert found[:2] == (-90, 180)
    assert str(place_of(GPSLatitude=(0.0, 0.0, 0.0))[0]) == "0.0"


@pytest.mark.parametrize("altitude", [ZERO_BY_ZERO, IFDRational(7, 0), 100_001.0])
def test_what_is_no_altitude_is_none(altitude):
    assert place_of(GPSAltitude=altitude)[2] is None
    assert place_of(GPSAltitude=altitude)[0] is not None


# --- Damage ---------------------------------------------------------------------------------------------


def test_each_thing_fails_by_itself():
    found = header({**CAMERA, Base.Model: b"\xff\xfe"}, {Base.DateTimeOriginal: "?"}, CAPE_TOWN)
    assert (found.time, found.make) == (None, "RECONYX")
    assert found.latitude is not None


def with_exif(content: bytes) -> Path:
    """A JPEG whose EXIF segment holds these bytes."""
    Image.new("RGB", (40, 30)).save("plain.jpg")
    plain = Path("plain.jpg").read_bytes()
    segment = b"Exif\0\0" + content
    marked = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    path = Path("hostile.jpg")
    path.write_bytes(plain[:2] + marked + plain[2:])
    return path


WHOLE = exif_of(CAMERA, TIME, CAPE_TOWN).tobytes().removeprefix(b"Exif\0\0")


def test_the_frame_for_damage_is_good():
    assert header_of(with_exif(WHOLE)).time == datetime(2026, 5, 4, 7, 31, 12)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_damaged_exif_is_never_an_error(seed):
    chance = random.Random(seed)
    damaged = bytearray(WHOLE)
    for _ in range(chance.randint(1, 12)):
        damaged[chance.randrange(len(damaged))] = chance.choice(
            [0, 1, 4, 5, 7, 12, 255, chance.randrange(256)]
        )
    found = header_of(
        with_exif(bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])]))
    )
    assert found.make.isprintable()
    assert found.latitude is None or -90 <= found.latitude <= 90
    assert found.longitude is None or -180 <= found.longitude <= 180


@pytest.mark.parametrize(
    "content", [b"", b"II", b"MM\0*\0\0\0\x08", b"II*\0\xff\xff\xff\xff", b"\0" * 60_000]
)
def test_headers_of_exif_that_lead_nowhere(content):
    assert header_of(with_exif(content)) == Header(40, 30)


def test_an_exif_directory_that_is_its_own_part():
    # IFD0 at 8 with one entry, ExifIFD, that points to IFD0 again, and a next directory that is itself.
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    assert header_of(with_exif(loop)) == Header(40, 30)


def test_a_raw_profile_that_is_no_hex():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n   9\nnot hex", zip=True)
    Image.new("RGB", (40, 30)).save("odd.png", pnginfo=info)
    assert header_of(Path("odd.png")) == Header(40, 30)


def test_a_png_that_ends_within_a_chunk():
    Path("cut.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 40, 30, 8, 2, 0, 0, 0)
        + struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)))
        + struct.pack(">I4s", 2**31 - 1, b"IDAT")
    )
    assert header_of(Path("cut.png")) == Header(40, 30)


def test_what_is_no_photo_is_refused():
    Path("text.jpg").write_text("no photo")
    for name in ("text.jpg", "nowhere.jpg"):
        with pytest.raises(ImageError, match=name):
            header_of(Path(name))
