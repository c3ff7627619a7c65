"""The columns of the CSV of predictions: which there are, and what stands in them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.errors import ConfigError
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judge, Judged
from birdsonnx.inference.keeping import csv_file
from birdsonnx.inference.keeping.csv_columns import Columns, asked_for
from tests.shots import GPS, Base, exif_of, save

CLASSES = ("=ANT", "BEE")
PLAIN = Judge(CLASSES)
LOG_PROBS = np.log(np.array([0.75, 0.25], np.float32))


def table(
    photos: list[Photo],
    columns: Columns,
    judge: Judge = PLAIN,
    known: float | None = None,
    raw: bool = False,
) -> list[dict[str, str]]:
    """What is written about some photos, by column."""
    with csv_file.writing(Path("table.csv"), columns, raw) as writer:
        for photo in photos:
            writer.add(Judged(photo, LOG_PROBS, judge.verdict(LOG_PROBS, known), known, 7))
    with Path("table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def photo(name: str, **parts) -> Photo:
    return Photo(save(Image.new("RGB", (40, 30)), name, exif_of(**parts)), name)


# --- Which ----------------------------------------------------------------------------------------------

EVERY = ("date", "camera", "place", "size", "path")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], ()),
        (["date"], ("date",)),
        (["path,date"], ("path", "date")),
        (["size", "date, SIZE,,"], ("size", "date")),
        (["all"], EVERY),
        (["place", "all"], ("place", "date", "camera", "size", "path")),
    ],
)
def test_columns_are_in_the_order_in_which_they_are_asked_for(words, asked):
    assert asked_for(words) == asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["dates"],
            "--columns 'dates' is none of date, camera, place, size, path, all; did you mean 'date'?",
        ),
        (["date,gps"], "'gps' is none of"),
        ([","], "--columns names none"),
        ([""], "--columns names none"),
    ],
)
def test_other_columns_are_refused(words, said):
    with pytest.raises(ConfigError) as caught:
        asked_for(words)
    assert said in str(caught.value)


def test_the_deepest_photo_says_how_many_folders_there_are():
    photos = [Photo(Path("x"), name) for name in ("a.jpg", "s/100/b.jpg", "s/c.jpg")]
    columns = Columns.of(Judge(CLASSES), photos, ("path",))
    assert columns.names() == ["name", "class_1", "probability_1", "folder_1", "folder_2", "file"]
    rows = table(photos, columns)
    parts = [(row["folder_1"], row["folder_2"], row["file"]) for row in rows]
    assert parts == [("", "", "a.jpg"), ("s", "100", "b.jpg"), ("s", "", "c.jpg")]


def test_what_only_some_models_say_has_columns_only_there():
    assert Columns.of(Judge(CLASSES, 2), []).names() == [
        "name",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
    ]
    judge = Judge(CLASSES, least_known=0.5)
    columns = Columns.of(judge, [], (), in_sequences=True)
    assert columns.names()[3:] == ["said", "level", "said_probability", "known", "sequence"]
    given = [Photo(Path("x"), "x.jpg")]
    said = table(given, columns, judge, 0.25)[0]["probability_1"]
    [row] = table(given, columns, judge, 0.25)
    assert [row[name] for name in columns.names()[3:]] == ["unknown", "unknown", said, "0.250000", "7"]
    [row] = table(given, columns, judge, 0.75)
    assert [row[name] for name in columns.names()[3:]] == ["'=ANT", "class", said, "0.750000", "7"]


# --- What -----------------------------------------------------------------------------------------------


def test_what_the_header_says():
    main = {Base.Make: "RECONYX", Base.Model: "HF 2", Base.Orientation: 6}
    details = {Base.DateTimeOriginal: "2026:05:04 07:31:12", Base.BodySerialNumber: "H600"}
    place = {GPS.GPSLatitudeRef: "S", GPS.GPSLatitude: (33.0, 54.0, 0.0), GPS.GPSLongitudeRef: "W"}
    place |= {GPS.GPSLongitude: (0.0, 0.0, 36.0), GPS.GPSAltitudeRef: b"\1", GPS.GPSAltitude: 12.25}
    whole = photo("whole.jpg", main=main, details=details, place=place)
    [row, empty] = table([whole, photo("empty.jpg")], Columns(asked=asked_for(["all"])))
    assert list(row.items())[3:] == [
        ("date", "2026-05-04T07:31:12"),
        ("camera_make", "RECONYX"),
        ("camera_model", "HF 2"),
        ("camera_serial", "H600"),
        ("latitude", "-33.900000"),
        ("longitude", "-0.010000"),
        ("altitude", "-12.2"),
        ("width", "30"),
        ("height", "40"),
        ("file", "whole.jpg"),
    ]
    assert list(empty.values())[3:] == ["", "", "", "", "", "", "", "40", "30", "empty.jpg"]


def test_a_photo_that_has_gone_leaves_empty_cells():
    [row] = table([Photo(Path("gone.jpg"), "gone.jpg")], Columns(asked=("size", "date", "path")))
    assert list(row.values())[3:] == ["", "", "", "gone.jpg"]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(text):
    main, details = {Base.Make: text, Base.Model: text}, {Base.BodySerialNumber: text}
    given = photo(f"{text}/{text}.jpg", main=main, details=details)
    columns = Columns.of(Judge(CLASSES), [given], ("camera", "path"))
    [row] = table([given], columns)
    assert row.pop("probability_1") == "0.750000"
    assert all(value.startswith("'") for value in row.values()), row
    [row] = table([given], columns, raw=True)
    assert [row["name"], row["camera_make"], row["folder_1"]] == [f"{text}/{text}.jpg", text, text]
