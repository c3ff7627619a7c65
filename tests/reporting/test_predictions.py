"""Predictions as people read them."""

from pathlib import Path

import numpy as np
import pytest

from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import UNKNOWN, Judged, Verdict
from birdsonnx.inference.keeping.summary import SHOWN, Summary
from birdsonnx.reporting.predictions import named_lines, next_lines, species_lines, total_line


def judged(name: str, verdict: Verdict) -> Judged:
    return Judged(Photo(Path(name), name), np.log(np.array([0.75, 0.25], np.float32)), verdict)


def summary(photos: int, classes: int = 3, refused: int = 0) -> Summary:
    made = Summary("model.onnx", "ONNX Runtime 1.19.2", Path("out/output_1.h5"), seconds=2.0)
    for number in range(photos):
        top = [(f"CLASS {number % classes}", 0.75), ("OTHER", 0.25)]
        made.add(judged(f"{number}.jpg", Verdict(*top[0], top)))
    made.refused += [f"bad {number}" for number in range(refused)]
    return made


def test_few_photos_are_listed_one_by_one():
    made = summary(11)
    lines = named_lines(made)
    assert lines[0] == "0.jpg   CLASS 0 0.7500   OTHER 0.2500"
    assert lines[10] == "10.jpg  CLASS 1 0.7500   OTHER 0.2500"
    assert len(made.as_json()["predictions"]) == 11


def test_what_is_said_instead_of_a_class_comes_first():
    made = summary(1)
    made.add(judged("1.jpg", Verdict(UNKNOWN, 0.9, [("CLASS 0", 0.9)], UNKNOWN, -3.5)))
    assert named_lines(made)[1] == "1.jpg  unknown (CLASS 0 0.9000)"
    assert made.counts == {"CLASS 0": 1, "unknown": 1}
    [_, entry] = made.as_json()["predictions"]
    assert (entry["said"], entry["level"], entry["known"]) == ("unknown", "unknown", -3.5)


@pytest.mark.parametrize(("photos", "refused"), [(SHOWN + 1, 0), (SHOWN, 1)])
def test_of_many_photos_the_classes_are_counted(photos, refused):
    made = summary(photos, refused=refused)
    assert named_lines(made) == [
        f"{made.counts[name]:>7} x {name}" for name in ("CLASS 0", "CLASS 1", "CLASS 2")
    ]
    assert made.as_json()["predictions"] is None


def test_of_many_classes_the_most_frequent_are_named():
    lines = named_lines(summary(70, classes=25))
    assert lines[0] == "      3 x CLASS 0"
    assert len(lines) == 21
    assert lines[-1] == "          and 5 more classes"


def test_nothing_that_could_be_used():
    assert named_lines(summary(0, refused=1)) == []


@pytest.mark.parametrize(
    ("refused", "output", "expected"),
    [
        (0, None, "4 photos in 2.00 s (2.0 images/s)"),
        (3, Path("o.h5"), "4 photos in 2.00 s (2.0 images/s) -> o.h5, 3 refused"),
    ],
)
def test_the_total(refused, output, expected):
    made = summary(4, refused=refused)
    made.output = output
    assert total_line(made) == expected


def test_where_no_box_was_named_nothing_is_to_be_done_with_it():
    made = summary(0)
    made.output, made.says_classes = Path("out/output_1.h5"), True
    assert next_lines(made, ["card"]) == []
    made.add(judged("0.jpg", Verdict("CLASS 0", 0.75, [("CLASS 0", 0.75)])))
    assert next_lines(made, ["card"]) == ["next: birdsonnx evaluate out/output_1.h5"]


def test_of_boxes_the_changed_answers_are_counted_among_boxes():
    made = summary(0)
    made.boxes = made.changed = 0
    verdict = Verdict("OTHER", 0.6, [("OTHER", 0.6)], instead_of=("CLASS 0", 0.8))
    for number in range(3):
        photo = Photo(Path("a.jpg"), f"a.jpg/{number}")
        made.add(Judged(photo, np.log(np.array([0.75, 0.25], np.float32)), verdict))
    assert made.photos == 1
    assert species_lines(made) == ["the list of species changed 3 of 3 answers"]


def test_of_predictions_without_a_box_nothing_is_next():
    made = Summary("model.onnx", "0" * 64, "ONNX Runtime 1.19.2", Path("out/output_1.h5"), boxes=0)
    made.says_classes = True
    assert next_lines(made, ["photos"]) == []
    made.boxes = 1
    assert next_lines(made, ["photos"]) == ["next: birdsonnx evaluate out/output_1.h5"]
