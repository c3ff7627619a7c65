"""A detector's file: what is read of it, and one line with the place of what is wrong."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from birdsonnx.errors import ConfigError, DataError
from birdsonnx.images import detections, found_boxes
from birdsonnx.images.crops import Box, BoxRequest, Crop, Cutting
from birdsonnx.images.detections import Detections
from birdsonnx.images.photo_list import Photo
from tests.megadetector import detected, with_

PLAIN = detected(**{"a.jpg": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], "b/c.jpg": [[0, 0, 1, 1]]})
FILE = Path("found.json")


def read(content: Any, **options: Any) -> Detections:
    FILE.write_text(content if isinstance(content, str) else json.dumps(content))
    return detections.read(BoxRequest(FILE, **options))


def boxes(found: Detections) -> dict[str, list[int]]:
    return {entry.file: [index for index, _, _ in entry.boxes] for entry in found.entries}


@pytest.mark.parametrize("form", [lambda text: text, lambda text: "\ufeff" + text])
def test_images_and_boxes_are_read(form):
    found = read(form(json.dumps(PLAIN)))
    assert boxes(found) == {"a.jpg": [0, 1], "b/c.jpg": [0]}
    assert found.entries[0].boxes[0] == (0, "1", Box(0.1, 0.2, 0.3, 0.4))
    assert [found.image(entry) for entry in found.entries] == PLAIN["images"]
    assert {key: value for key, value in PLAIN.items() if key != "images"} | {"images": []} == found.head


def test_the_order_of_keys_does_not_matter():
    turned = dict(reversed(list(PLAIN.items())))
    assert boxes(read(turned)) == boxes(read(PLAIN))


@pytest.mark.parametrize(("least", "kept"), [(0, [0, 1]), (0.5, [0, 1]), (0.51, [1]), (0.9, [1]), (1, [])])
def test_boxes_below_the_least_confidence_are_passed_over(least, kept):
    content = with_(PLAIN, "images.0.detections.0.conf", 0.5)
    assert boxes(read(content, min_confidence=least))["a.jpg"] == kept


def test_a_negative_confidence_is_one_that_a_tool_took_away():
    assert boxes(read(with_(PLAIN, "images.0.detections.0.conf", -0.9), min_confidence=0))["a.jpg"] == [1]


@pytest.mark.parametrize(
    ("names", "chosen", "kept"),
    [
        ({"1": "animal", "2": "person"}, None, [0]),
        ({"7": "person", "1": "Animal", "2": "vehicle"}, None, [0]),
        ({"1": "bird", "2": "person"}, None, [0, 1]),
        ({"1": "animal", "2": "person"}, (), [0, 1]),
        ({"1": "animal", "2": "person"}, ("PERSON",), [1]),
        ({"1": "animal", "2": "person"}, ("person", "animal"), [0, 1]),
        ({"2": "animal"}, None, [1]),  # a category that has no name is no detection
    ],
)
def test_animals_are_named_unless_others_are_asked_for(names, chosen, kept):
    content = with_(with_(PLAIN, "detection_categories", names), "images.0.detections.1.category", "2")
    assert boxes(read(content, categories=chosen))["a.jpg"] == kept


def test_a_category_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r'no category "animals", but .*; did you mean \'animal\'\?'):
        read(PLAIN, categories=("animals",))


def test_failed_images_and_videos_have_no_boxes():
    content = with_(PLAIN, "images.1", {"file": "x.jpg", "failure": "unreadable", "detections": None})
    video = {"file": "y.mp4", "frame_rate": 20, "frames_processed": [0], **PLAIN["images"][1]} | {
        "file": "y.mp4"
    }
    content["images"].append(video)
    found = read(content)
    assert boxes(found) == {"a.jpg": [0, 1], "x.jpg": [], "y.mp4": []}
    assert (found.failed, found.videos) == (1, 1)


BOX = "images.0.detections.1.bbox"
PLACE = r'^found\.json: images\[0\] \("a\.jpg"\): detections\[1\]'

WRONG: list[tuple[str, Any, str]] = [
    (BOX, [0.1, 0.2, 0.3], PLACE + r"\.bbox\[3\]: this key is required"),
    (BOX, [0.1, 0.2, 0.3, 0.4, 0.5], PLACE + r"\.bbox: Tuple should have at most 4 items"),
    (BOX, {}, PLACE + r"\.bbox: Input should be a valid tuple, got \{\}"),
    (BOX, None, PLACE + r"\.bbox: "),
    (BOX, [0.1, 0.2, "0.3", 0.4], PLACE + r'\.bbox\[2\]: Input should be a valid number, got "0.3"'),
    (BOX, [0.1, 0.2, True, 0.4], PLACE + r"\.bbox\[2\]: Input should be a valid number, got true"),
    (BOX, [0.1, 0.2, -0.1, 0.4], PLACE + r"\.bbox: a box has no negative width or height, got \[0\.1, 0"),
    (BOX, [0.9, 0.2, 0.2, 0.4], PLACE + r"\.bbox: a box is \[x_min, y_min, width, height\] in shares"),
    (BOX, [-0.1, 0.2, 0.2, 0.4], PLACE + r"\.bbox: a box is"),
    (BOX, [120, 80, 300, 400], PLACE + r"\.bbox: a box is .* got \[120\.0, 80\.0, 300\.0, 400\.0\]$"),
    (BOX, [1e308, 1e308, 1e308, 1e308], PLACE + r"\.bbox: a box is"),
    (BOX, ..., PLACE + r"\.bbox: this key is required"),
    ("images.0.detections.1.conf", 1.5, PLACE + r"\.conf: .* less than or equal to 1, got 1\.5"),
    ("images.0.detections.1.conf", "0.5", PLACE + r"\.conf: Input should be a valid number"),
    ("images.0.detections.1.conf", ..., PLACE + r"\.conf: this key is required"),
    ("images.0.detections.1.category", 1, PLACE + r"\.category: Input should be a valid string, got 1"),
    ("images.0.detections.1", 7, PLACE + ": Input should be"),
    ("images.0.detections", {}, r"^found\.json: images\[0\] .*: detections: Input should be a valid list"),
    ("images.0.detections", None, r"images\[0\] .* neither detections nor a failure"),
    ("images.0.detections", ..., r"images\[0\] .* neither detections nor a failure"),
    ("images.0.failure", 3, r"images\[0\] .*: failure: Input should be a valid string"),
    ("images.1.file", ..., r"^found\.json: images\[1\]: file: this key is required"),
    ("images.1.file", "", r"^found\.json: images\[1\] .*: file: String should have at least 1 character"),
    ("images.1.file", "a\0b", r"^found\.json: images\[1\] .*: file: a NUL character is in no name"),
    ("images.1.file", 5, r"^found\.json: images\[1\]: file: Input should be a valid string, got 5"),
    ("images.1.file", "a.jpg", r'^found\.json: "a\.jpg" is there twice, as images\[0\] and images\[1\]$'),
    ("images.1", [], r"^found\.json: images\[1\]: Input should be a valid dictionary"),
    ("images", {}, "'images' is no list; a file in MegaDetector's batch format is needed"),
    ("images", ..., "it has no 'images'; a file in MegaDetector's batch format is needed"),
    ("info", ..., "it has no 'info' with a 'format_version'"),
    ("info", [], "it has no 'info' with a 'format_version'"),
    ("info.format_version", ..., "it has no 'info' with a 'format_version'"),
    ("info.format_version", "2.0", r'info\.format_version: "2\.0" is not 1\.0 to 1\.x'),
    ("info.format_version", True, r"info\.format_version: true is not"),
    ("info.format_version", [1], r"info\.format_version: \[1\] is not"),
    ("detection_categories", ..., "its 'detection_categories' must be an object of names"),
    ("detection_categories", ["animal"], "its 'detection_categories' must be an object of names"),
    ("detection_categories", {"1": 1}, "its 'detection_categories' must be an object of names"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_what_is_not_in_the_format_is_refused_with_its_place(path, value, words):
    with pytest.raises(DataError, match=words):
        read(with_(PLAIN, path, value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"^found\.json: line 1, column 1: an object"),
        ("[]", r"^found\.json: line 1, column 1: an object"),
        ('{"images": [}', r"^found\.json: line 1, column 13: Expecting value \(not valid JSON\)"),
        (json.dumps(PLAIN).replace("0.3", "NaN"), r"images\[0\]: detections\[0\].bbox\[2\]: NaN is not a"),
        (json.dumps(PLAIN).replace("0.3", "1e999"), r"images\[0\]: detections\[0\].bbox\[2\]: 1e999 is not"),
        (json.dumps(PLAIN).replace('"conf"', '"bbox"', 1), r"images\[0\]: the key 'bbox' is given twice"),
        (json.dumps(PLAIN).replace("b/c", "\\ud800"), r"images\[1\]: a text in it holds half a character"),
        ('{"images": [' + '{"x":' * 50_000 + "1" + "}" * 50_000 + "]}", r"images\[0\]: nested too deeply"),
    ],
)
def test_text_that_is_no_such_json_is_refused(text, words):
    with pytest.raises(DataError, match=words):
        read(text)


def test_files_that_cannot_be_read_are_refused(monkeypatch):
    FILE.write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        detections.read(BoxRequest(FILE))
    with pytest.raises(DataError, match=re.escape("there is no such file; did you mean 'found.json'?")):
        detections.read(BoxRequest(Path("fuond.json")))
    FILE.unlink()
    os.mkfifo(FILE)
    with pytest.raises(DataError, match="no regular file"):
        detections.read(BoxRequest(FILE))
    with pytest.raises(DataError, match="no regular file"):
        detections.read(BoxRequest(Path()))
    monkeypatch.setattr(detections, "LARGEST", 10)
    Path("large.json").write_text(json.dumps(PLAIN))
    with pytest.raises(DataError, match="larger than 10 bytes"):
        detections.read(BoxRequest(Path("large.json")))


# The photos that were given ---------------------------------------------------------------------------


def find(content: Any, *names: str, **options: Any) -> tuple[found_boxes.Found, list[str]]:
    FILE.write_text(json.dumps(content))
    request, said = BoxRequest(FILE, **options), list[str]()
    photos = [Photo(Path("card") / name, name) for name in names]
    return found_boxes.find(detections.read(request), photos, request, said.append), said


@pytest.mark.parametrize("spelled", ["b/c.jpg", "b\\c.jpg", "./b/c.jpg", ".\\b\\c.jpg"])
def test_an_image_is_the_photo_of_its_name(spelled):
    cutting = Cutting(0.1, False)
    found, said = find(with_(PLAIN, "images.1.file", spelled), "a.jpg", "b/c.jpg", cutting=cutting)
    assert list(found.crops) == [
        Crop(Path("card/a.jpg"), "a.jpg/0", box=Box(0.1, 0.2, 0.3, 0.4), cutting=cutting),
        Crop(Path("card/a.jpg"), "a.jpg/1", box=Box(0.5, 0.5, 0.5, 0.5), cutting=cutting),
        Crop(Path("card/b/c.jpg"), "b/c.jpg/0", box=Box(0, 0, 1, 1), cutting=cutting),
    ]
    assert (found.refused, said) == ([], [])


def test_an_absolute_path_is_the_photo_that_lies_there():
    place = str(Path("card/b/c.jpg").absolute())
    found, _ = find(with_(PLAIN, "images.1.file", place), "a.jpg", "b/c.jpg")
    assert found.crops[-1].name == "b/c.jpg/0"


@pytest.mark.parametrize(
    "outside",
    ["../b/c.jpg", "/etc/passwd", "b/../../c.jpg", "\\\\server\\c.jpg", "C:\\b\\c.jpg", "b/../b/c.jpg"],
)
def test_nothing_else_is_ever_looked_at(outside):
    """A path that leads anywhere is no photo that was given."""
    found, _ = find(with_(PLAIN, "images.1.file", outside), "a.jpg", "b/c.jpg")
    assert {crop.path for crop in found.crops} == {Path("card/a.jpg")}
    [(photo, reason)] = found.refused
    assert photo.name == outside
    assert reason == f"{outside}: found.json has boxes of it, and it is not among the photos"


def test_two_images_that_are_one_photo_are_refused():
    content = with_(PLAIN, "images.0.file", "b\\c.jpg")
    with pytest.raises(DataError, match=r"'b\\\\c.jpg' and 'b/c.jpg' are the same photo, card/b/c.jpg"):
        find(content, "b/c.jpg")


def test_photos_that_the_file_does_not_mention_are_said():
    found, said = find(PLAIN, "a.jpg", "b/c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg")
    assert len(found.crops) == 3
    assert said == ["found.json does not mention 4 photos (d.jpg, e.jpg, f.jpg and 1 more): left out"]


def test_images_without_boxes_need_no_photo():
    found, said = find(with_(PLAIN, "images.1.detections", []), "a.jpg")
    assert (len(found.crops), found.refused) == (2, [])
    assert said == ["found.json: 1 of its images without boxes to name are not among the photos"]


def test_a_folder_that_is_not_the_files_is_refused():
    with pytest.raises(DataError, match=r"none of its 2 images, such as 'a\.jpg', is among the photos, such"):
        find(PLAIN, "x/a.jpg")


def test_a_box_without_area_is_refused_alone():
    found, _ = find(with_(PLAIN, "images.0.detections.0.bbox", [0.5, 0.5, 0.0, 0.2]), "a.jpg", "b/c.jpg")
    assert [crop.name for crop in found.crops] == ["a.jpg/1", "b/c.jpg/0"]
    assert [(photo.name, why) for photo, why in found.refused] == [
        ("a.jpg/0", "card/a.jpg: the box 0 has no area")
    ]


def test_that_nothing_is_to_be_named_is_said():
    found, said = find(PLAIN, "a.jpg", "b/c.jpg", min_confidence=0.95)
    assert (list(found.crops), found.refused) == ([], [])
    assert said == [
        "found.json: no box in it is to be named; see --min-confidence and --detection-categories"
    ]


@pytest.mark.parametrize("box", [[1.005, 0.5, 0.004, 0.2], [0.2, -0.008, 0.3, 0.007]])
def test_a_box_beyond_the_edge_has_no_area(box):
    found, _ = find(with_(PLAIN, "images.0.detections.0.bbox", box), "a.jpg", "b/c.jpg")
    assert [crop.name for crop in found.crops] == ["a.jpg/1", "b/c.jpg/0"]
    assert [why for _, why in found.refused] == ["card/a.jpg: the box 0 has no area"]


def test_all_categories_are_also_those_that_the_file_does_not_list():
    content = with_(PLAIN, "images.0.detections.0.category", "77")
    found, _ = find(content, "a.jpg", "b/c.jpg")
    assert [crop.name for crop in found.crops] == ["a.jpg/1", "b/c.jpg/0"]
    found, _ = find(content, "a.jpg", "b/c.jpg", categories=())
    assert [crop.name for crop in found.crops] == ["a.jpg/0", "a.jpg/1", "b/c.jpg/0"]
