"""A prediction: the file of log-probabilities, the CSV, the summary; what is kept, and what is refused."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.images.decoding import Decoder
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.judging.verdicts import Judge
from birdsonnx.inference.keeping.summary import SHOWN
from birdsonnx.inference.prediction import Files, record
from birdsonnx.runtime.ranks import Ranks
from tests.conftest import disk_of
from tests.inference.conftest import CLASSES, COUNT, broken
from tests.tiny import tiny_model

OUTPUT = Path("predictions/output_1.h5")
BOTH = Files(OUTPUT, csv=Path("named.csv"))


def test_output_csv_and_summary_tell_the_same(classifier, photos, expected):
    advanced = []
    mixed = [*photos, broken("x.jpg")]
    judge = Judge.of(classifier, 2)
    summary = record(classifier, mixed, Ranks(), BOTH, judge, advanced.append)
    probabilities = np.exp(expected)
    order = np.argsort(-expected, axis=1)[:, :2]
    names = [entry.name for entry in photos]

    with h5py.File(OUTPUT) as file:
        assert list(file) == names
        np.testing.assert_allclose([file[name][()] for name in names], expected, atol=1e-6)
        assert tuple(file.attrs["classes"]) == CLASSES
        assert (file.attrs["photos"], file.attrs["refused"]) == (COUNT, 1)
        assert file.attrs["model_sha256"] == classifier.sha256

    with Path("named.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row[0] for row in rows] == names
    assert [[row[1], row[3]] for row in rows] == [[CLASSES[index] for index in best] for best in order]
    written = [[float(row[2]), float(row[4])] for row in rows]
    np.testing.assert_allclose(written, np.take_along_axis(probabilities, order, 1), atol=2e-6)

    assert (summary.photos, len(summary.refused), sum(advanced)) == (COUNT, 1, COUNT + 1)
    assert summary.refused[0].startswith("x.jpg: not an image")
    assert (summary.output, summary.csv) == (OUTPUT, Path("named.csv"))
    assert [entry["name"] for entry in summary.shown] == names
    assert [[name for name, _ in entry["top"]] for entry in summary.shown] == [row[1::2] for row in rows]
    first = [CLASSES[index] for index in order[:, 0]]
    assert summary.counts == {name: first.count(name) for name in set(first)}


@pytest.mark.parametrize("top_k", [1, 2, 3, 10])
def test_top_k_is_at_most_the_number_of_classes(classifier, photos, expected, top_k):
    summary = record(classifier, photos, Ranks(), judge=Judge.of(classifier, top_k))
    for entry, row in zip(summary.shown, expected, strict=True):
        best = sorted(range(3), key=lambda index: -row[index])[: min(top_k, 3)]
        assert [name for name, _ in entry["top"]] == [CLASSES[index] for index in best]
        assert [p for _, p in entry["top"]] == pytest.approx([np.exp(row[index]) for index in best], abs=1e-6)
    assert not list(Path().iterdir())


def test_only_the_first_photos_are_shown(classifier, photos):
    many = [Photo(photos[0].path, f"{number:03}.png") for number in range(SHOWN + 20)]
    summary = record(classifier, many, Ranks(), Files(OUTPUT))
    assert [entry["name"] for entry in summary.shown] == [entry.name for entry in many[:SHOWN]]
    assert sum(summary.counts.values()) == summary.photos == SHOWN + 20


def test_nothing_but_refused_photos_is_an_error_and_the_old_files_stay(classifier, photos):
    record(classifier, photos, Ranks(), BOTH)
    before = OUTPUT.read_bytes(), Path("named.csv").read_bytes()
    bad = [broken("x.jpg"), broken("y.jpg")]
    with pytest.raises(DataError, match="none of the 2 photos can be used") as caught:
        record(classifier, bad, Ranks(), BOTH)
    assert "x.jpg: not an image" in str(caught.value)
    assert "y.jpg: not an image" in str(caught.value)
    assert (OUTPUT.read_bytes(), Path("named.csv").read_bytes()) == before
    assert {path.name for path in Path().iterdir()} == {"predictions", "named.csv", "x.jpg", "y.jpg"}
    assert [path.name for path in OUTPUT.parent.iterdir()] == ["output_1.h5"]


def test_a_name_that_hdf5_cannot_hold_is_refused_there_and_only_there(classifier, photos):
    odd = Photo(photos[0].path, os.fsdecode(b"bad \xff.png"))
    mixed = [odd, *photos[1:3]]
    summary = record(classifier, mixed, Ranks(), Files(OUTPUT))
    assert summary.photos == 2
    assert "not valid UTF-8" in summary.refused[0]
    without = record(classifier, mixed, Ranks(), Files(csv=Path("named.csv")))
    assert (without.photos, without.refused) == (3, [])
    assert b"bad \xff.png" in Path("named.csv").read_bytes()


def test_a_model_without_class_names(photos):
    classifier = open_classifier(tiny_model(3).serialized(), "model", 1, 1)
    assert classifier.class_names == ("class 0", "class 1", "class 2")
    record(classifier, photos[:2], Ranks(), Files(OUTPUT))
    with h5py.File(OUTPUT) as file:
        assert "classes" not in file.attrs


# --- Errors of the system -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OSError(5, "broken disk", "photo.jpg"), BrokenPipeError(32, "nobody reads")]
)
@pytest.mark.parametrize("where", ["photos", "progress"])
def test_an_error_that_is_not_of_the_output_keeps_its_name(classifier, photos, where, error):
    record(classifier, photos, Ranks(), BOTH)
    before = OUTPUT.read_bytes(), Path("named.csv").read_bytes()

    def fail(*_, **__) -> None:
        raise error

    if where == "photos":
        classifier = replace(classifier, decoder=replace_call(classifier.decoder, fail))
    advance = fail if where == "progress" else lambda _: None
    with pytest.raises(type(error)) as caught:
        record(classifier, photos, Ranks(), BOTH, advance=advance)
    assert caught.value is error
    assert (OUTPUT.read_bytes(), Path("named.csv").read_bytes()) == before
    assert {path.name for path in Path().iterdir()} == {"predictions", "named.csv"}
    assert [path.name for path in OUTPUT.parent.iterdir()] == ["output_1.h5"]


def replace_call(decoder: Decoder, call) -> Decoder:
    """The same decoder, but its work is done by `call`."""
    return type("Failing", (type(decoder),), {"__call__": call})(**vars(decoder))


@pytest.mark.parametrize(
    ("output", "csv_path", "count", "full"),
    [
        (OUTPUT, None, 1000, "predictions/output_1.h5"),
        (None, Path("named.csv"), 1000, "named.csv"),
        (OUTPUT, Path("named.csv"), 1000, "named.csv"),  # HDF5 keeps more in memory
        (OUTPUT, Path("named.csv"), 150, "predictions/output_1.h5"),  # of which the CSV takes 4 KB
    ],
)
def test_a_full_disk_names_the_file_that_did_not_fit(classifier, photos, output, csv_path, count, full):
    many = [Photo(photos[0].path, f"{number:03}.png") for number in range(count)]
    with pytest.raises(ArtifactError, match=f"cannot write {full}: File too large"), disk_of(6000):
        record(classifier, many, Ranks(), Files(output, csv=csv_path))
    assert not [path for path in Path().rglob("*") if path.suffix in (".h5", ".tmp")]


def test_a_csv_that_cannot_be_written_is_named(classifier, photos):
    Path("named.csv").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot write named\.csv: "):
        record(classifier, photos, Ranks(), BOTH)
    assert not OUTPUT.exists()
