"""Photos sorted by the classes that they were named: names of folders, and where they may be."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.errors import BirdsonnxError
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judged, Verdict
from birdsonnx.inference.keeping import sorting
from birdsonnx.inference.keeping.sorting import Sorter, require_folder_names, require_free, unfit_for_folder
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
    ("folder", "said"),
    [
        ("full", "full: exists and is not empty; give a new folder"),
        ("in/sorted", "in/sorted: lies in in, whose photos would be found there again"),
        ("predictions", "predictions/output_1.h5: would lie among the photos of --sort predictions"),
        (".", ".: exists and is not empty"),
    ],
)
def test_folders_that_are_refused_before_any_work(folder, said):
    for path in ("full/COOT/1.jpg", "in/1.jpg"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    with pytest.raises(BirdsonnxError) as caught:
        require_free(Path(folder), ["in"], (Path("predictions/output_1.h5"), None))
    assert said in str(caught.value)


def test_a_class_that_cannot_be_a_folder_is_named():
    require_folder_names(["COOT", "WREN"])
    said = r"'A/B' cannot be a folder: it holds '/' or NUL \(1 more are like it\)"
    with pytest.raises(BirdsonnxError, match=said):
        require_folder_names(["COOT", "A/B", ".", "WREN"])


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="there it is refused")
def test_names_that_differ_in_case_are_two_folders_only_where_the_disk_has_two(monkeypatch):
    require_folder_names(["COOT", "Coot"])
    monkeypatch.setattr(sorting.sys, "platform", "darwin")
    with pytest.raises(BirdsonnxError, match="'COOT' and 'Coot' would be one folder here"):
        require_folder_names(["COOT", "Coot"])


def test_a_disk_that_fails_leaves_nothing_and_says_where_the_predictions_are(monkeypatch):
    sorter = Sorter(Path("sorted"), copies=True)
    Path("1.jpg").touch()
    for path in ("1.jpg", "gone.jpg"):
        photo, log_probs = Photo(Path(path), f"card/{path}"), np.zeros(1, np.float32)
        sorter.add(Judged(photo, log_probs, Verdict("COOT", 1.0, [("COOT", 1.0)])))
    with pytest.raises(BirdsonnxError) as caught:
        sorter.place(Path("predictions/output_1.h5"), QUIET)
    said = "cannot write sorted: No such file or directory; the predictions are in predictions/output_1.h5"
    assert str(caught.value) == said
    assert [path.name for path in Path().iterdir()] == ["1.jpg"]
