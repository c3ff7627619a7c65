"""Predictions as people read them."""

from pathlib import Path

import pytest

from birdsonnx.inference.summary import SHOWN, Summary
from birdsonnx.reporting.predictions import named_lines, total_line


def summary(photos: int, classes: int = 3, refused: int = 0) -> Summary:
    made = Summary("model.onnx", "ONNX Runtime 1.19.2", Path("out/output_1.h5"), seconds=2.0)
    for number in range(photos):
        made.add(f"{number}.jpg", [(f"CLASS {number % classes}", 0.75), ("OTHER", 0.25)])
    made.refused += [f"bad {number}" for number in range(refused)]
    return made


def test_few_photos_are_listed_one_by_one():
    made = summary(11)
    lines = named_lines(made)
    assert lines[0] == "0.jpg   CLASS 0 0.7500   OTHER 0.2500"
    assert lines[10] == "10.jpg  CLASS 1 0.7500   OTHER 0.2500"
    assert len(made.as_json()["predictions"]) == 11


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
