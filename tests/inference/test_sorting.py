"""Photos sorted by the classes that they were named: names of folders, and where they may be."""

import os
import sys
from pathlib import Path

import pytest

from birdsonnx.errors import BirdsonnxError
from birdsonnx.images.folders import Photo
from birdsonnx.inference import sorting
from birdsonnx.inference.sorting import Sorter, require_sortable, unfit_for_folder
from birdsonnx.reporting.console import Console

QUIET = Console(speaks=False)


@pytest.mark.parametrize(
    ("name", "here", "on_windows"),
    [
        ("D-ARNAUDS BARBET", True, True),
        ("Häher (Eichel-)", True, True),
        ("A" * 255, True, True),
        ("A" * 256, False, False),
        ("é" * 128, False, False),
        ("", False, False),
        (".", False, False),
        ("..", False, False),
        ("../COOT", False, False),
        ("/etc", False, False),
        ("COOT/WREN", False, False),
        (".hidden", False, False),
        ("a\0b", False, False),
        ("\ud800", False, False),
        ("COOT\\WREN", True, False),
        ("which bird?", True, False),
        ("a\nb", True, False),
        ("etc.", True, False),
        ("COOT ", True, False),
        ("aux", True, False),
        ("Nul.bird", True, False),
        ("LPT1", True, False),
        ("LPT10", True, True),
        ("console", True, True),
    ],
)
def test_which_names_can_be_folders(name, here, on_windows):
    assert (unfit_for_folder(name, windows=False) == "") == here
    assert (unfit_for_folder(name, windows=True) == "") == on_windows


@pytest.mark.parametrize(
    ("folder", "classes", "said"),
    [
        (
            "sorted",
            ["COOT", "A/B", ".", "WREN"],
            "the class 'A/B' cannot be a folder: it holds '/' or NUL (1 more",
        ),
        ("full", ["COOT"], "full: exists and is not empty; give a new folder"),
        ("in/sorted", ["COOT"], "in/sorted: lies in in, whose photos would be found there again"),
        (
            "predictions",
            ["COOT"],
            "predictions/output_1.h5: would lie among the photos of --sort predictions",
        ),
        (".", ["COOT"], ".: exists and is not empty"),
    ],
)
def test_what_is_refused_before_any_photo_is_named(folder, classes, said):
    for path in ("full/COOT/1.jpg", "in/1.jpg"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    with pytest.raises(BirdsonnxError) as caught:
        require_sortable(Path(folder), ["in"], (Path("predictions/output_1.h5"), None), classes)
    assert said in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="there it is refused")
def test_names_that_differ_in_case_are_two_folders_only_where_the_disk_has_two(monkeypatch):
    require_sortable(Path("sorted"), ["in"], (), ["COOT", "Coot"])
    monkeypatch.setattr(sorting.sys, "platform", "darwin")
    with pytest.raises(BirdsonnxError, match="'COOT' and 'Coot' would be one folder here"):
        require_sortable(Path("sorted"), ["in"], (), ["COOT", "Coot"])


def test_a_disk_that_fails_leaves_nothing_and_says_where_the_predictions_are(monkeypatch):
    sorter = Sorter(Path("sorted"), copies=True)
    Path("1.jpg").touch()
    for path in ("1.jpg", "gone.jpg"):
        sorter.add(Photo(Path(path), f"card/{path}"), "COOT")
    with pytest.raises(BirdsonnxError) as caught:
        sorter.place(Path("predictions/output_1.h5"), QUIET)
    said = "cannot write sorted: No such file or directory; the predictions are in predictions/output_1.h5"
    assert str(caught.value) == said
    assert [path.name for path in Path().iterdir()] == ["1.jpg"]
