"""`predict --detections` and `--results` as a user runs them: a detector's file in, the same with names
out."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageOps

from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.megadetector import detected, require_valid, with_
from tests.tiny import SIZE, photo, tiny_model

CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]
BOXES = {
    "night/IMG_0001.JPG": [[0.0, 0.0, 0.5, 0.5], [0.5, 0.25, 0.25, 0.5], [0.9, 0.9, 0.05, 0.1]],
    "day/IMG_0001.JPG": [],
    "day/IMG_0002.PNG": [[0.25, 0.25, 0.5, 0.5]],
}
OPTIONS = ("--detections", "found.json", "--model", "model.onnx", "card")


@pytest.fixture
def card(tmp_path) -> dict[str, Any]:
    """`model.onnx`, photos of a camera in `card`, one of them turned by EXIF, and `found.json` of a
    detector."""
    tiny_model(3, CLASSES).save(Path("model.onnx"))
    generator = np.random.default_rng(3)
    exif = Image.Exif()
    exif[0x112] = 6
    for number, name in enumerate(BOXES):
        path = Path("card") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (160, 120), (90, 110, 80))
        for place in range(3):
            picture.paste(photo(number + place, generator, 50), (place * 52, place * 30))
        picture.save(path, **({"exif": exif} if number == 0 else {}))
    content = with_(detected(**BOXES), "images.0.detections.1.conf", 0.1)
    content = with_(content, "images.0.detections.2.category", "2")
    content["images"][0]["sequence"] = {"id": "é7"}
    Path("found.json").write_text(json.dumps(content, indent=1))
    return content


def expected(name: str, box: list[float], square: bool = True, padding: float = 0.0) -> np.ndarray:
    """The oracle: Pillow and a bare session. Boxes here stay clear of the edges, padded and square or not."""
    image = ImageOps.exif_transpose(Image.open(Path("card") / name)).convert("RGB")
    width, height = box[2] * image.width, box[3] * image.height
    x, y = box[0] * image.width + width / 2, box[1] * image.height + height / 2
    wide, high = (side + 2 * padding * max(width, height) for side in (width, height))
    if square:
        wide = high = max(wide, high)
    x, y = min(max(x, wide / 2), image.width - wide / 2), min(max(y, high / 2), image.height - high / 2)
    edges = (round(x - wide / 2), round(y - high / 2), round(x + wide / 2), round(y + high / 2))
    pixels = image.crop(edges).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.asarray(pixels)[None]})[0][0]


def predictions() -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File("predictions/output_1.h5") as file:
        file.visititems(lambda name, it: found.update({name: it[()]} if isinstance(it, h5py.Dataset) else {}))
    return found


def results(path: str = "named.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    require_valid(content)
    return content


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_detectors_boxes_are_named(card, ranks):
    words = (*OPTIONS, "--results", "named.json", "--csv", "named.csv", "--top-k", "2")
    done = birdsonnx("predict", *words, "--json", ranks=ranks, fresh=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["photos"], summary["boxes"], summary["results"]) == (2, 2, "named.json")
    first, second = (
        expected("night/IMG_0001.JPG", [0, 0, 0.5, 0.5]),
        expected("day/IMG_0002.PNG", [0.25, 0.25, 0.5, 0.5]),
    )
    found = predictions()
    assert list(found) == ["day/IMG_0002.PNG/0", "night/IMG_0001.JPG/0"]
    np.testing.assert_allclose(found["night/IMG_0001.JPG/0"], first, atol=1e-5)
    np.testing.assert_allclose(found["day/IMG_0002.PNG/0"], second, atol=1e-5)

    named = results()
    for image, log_probs in ((0, first), (2, second)):
        listed = named["images"][image]["detections"][0].pop("classifications")
        best = np.argsort(-log_probs)[:2]
        assert [each for each, _ in listed] == [str(index) for index in best]
        np.testing.assert_allclose([value for _, value in listed], np.exp(log_probs[best]), atol=2e-6)
    assert named["images"] == card["images"]
    assert named["classification_categories"] == {str(index): name for index, name in enumerate(CLASSES)}
    assert named["info"].items() >= card["info"].items()

    with Path("named.csv").open(newline="") as file:
        rows = {row["name"]: row["class_1"] for row in csv.DictReader(file)}
    assert rows == {
        "night/IMG_0001.JPG/0": CLASSES[first.argmax()],
        "day/IMG_0002.PNG/0": CLASSES[second.argmax()],
    }


def test_the_columns_of_a_boxs_path_are_its_photos(card):
    succeed("predict", *OPTIONS, "--csv", "named.csv", "--columns", "path,size")
    with Path("named.csv").open(newline="") as file:
        rows = {row.pop("name"): row for row in csv.DictReader(file)}
    row = rows["night/IMG_0001.JPG/0"]
    assert (row["folder_1"], row["file"], list(row)[-2:]) == ("night", "IMG_0001.JPG", ["width", "height"])
    assert "folder_2" not in row


def test_any_number_of_ranks_writes_the_same_bytes(card):
    content = []
    for ranks in (1, 2):
        succeed("predict", *OPTIONS, "--results", "named.json", ranks=ranks)
        content.append(Path("named.json").read_bytes())
    assert len(set(content)) == 1


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ((), {}),
        (("--no-crop-square",), {"square": False}),
        (("--crop-square", "--crop-padding", "0.1"), {"padding": 0.1}),
        (("--no-crop-square", "--crop-padding", "0.05"), {"square": False, "padding": 0.05}),
    ],
)
def test_crops_are_cut_as_asked(card, options, how):
    box = [0.3, 0.25, 0.2, 0.5]
    content = with_(detected(**{"night/IMG_0001.JPG": [box], "day/IMG_0002.PNG": [box]}), "info.x", 1)
    Path("found.json").write_text(json.dumps(content))
    said = succeed("predict", *OPTIONS, *options)
    assert "2 boxes of 2 photos in " in said
    assert "does not mention 1 photo (day/IMG_0001.JPG): left out" in said
    for name, log_probs in predictions().items():
        np.testing.assert_allclose(log_probs, expected(name.removesuffix("/0"), box, **how), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "boxes"),
    [
        (
            ("--min-confidence", "0.05"),
            {"night/IMG_0001.JPG/0", "night/IMG_0001.JPG/1", "day/IMG_0002.PNG/0"},
        ),
        (("--detection-categories", "Person"), {"night/IMG_0001.JPG/2"}),
        (
            ("--detection-categories", "animal, person"),
            {"night/IMG_0001.JPG/0", "night/IMG_0001.JPG/2", "day/IMG_0002.PNG/0"},
        ),
        (
            ("--detection-categories", "all", "--min-confidence", "0"),
            {*(f"night/IMG_0001.JPG/{number}" for number in range(3)), "day/IMG_0002.PNG/0"},
        ),
    ],
)
def test_boxes_are_chosen_as_asked_and_numbered_as_in_the_file(card, options, boxes):
    succeed("predict", *OPTIONS, *options)
    assert set(predictions()) == boxes


def test_photos_without_boxes_are_never_opened(card):
    Path("card/day/IMG_0001.JPG").write_text("no photo")
    assert succeed_json("predict", *OPTIONS)["refused"] == []


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_cannot_be_named_is_a_failure(card, ranks):
    Path("card/day/IMG_0002.PNG").write_text("no photo")
    content = with_(card, "images.0.detections.1", {"category": "1", "conf": 0.8, "bbox": [0.1, 0.1, 0, 0.2]})
    gone = {"file": "..\\gone.jpg", "detections": card["images"][2]["detections"] * 2}
    content["images"].append(gone)
    Path("found.json").write_text(json.dumps(content))
    done = birdsonnx("predict", *OPTIONS, "--results", "named.json", "--json", ranks=ranks)
    assert done.returncode == 1
    assert sorted(json.loads(done.stdout)["refused"]) == [
        "..\\gone.jpg: found.json has boxes of it, and it is not among the photos",
        "card/day/IMG_0002.PNG: not an image that can be read (JPEG, PNG, BMP, GIF, PPM, TIFF, WEBP, AVIF)",
        "card/night/IMG_0001.JPG: the box 1 has no area",
    ]
    night, _, day, last = results()["images"]
    assert [("classifications" in each) for each in night["detections"]] == [True, False, False]
    assert day["detections"] is None
    assert day["failure"].startswith("not an image")
    assert last == gone  # another run may find it


def test_where_nothing_can_be_named_nothing_is_written(card):
    for path in Path("card").rglob("*.*"):
        path.write_text("no photo")
    done = birdsonnx("predict", *OPTIONS, "--results", "named.json")
    assert done.returncode == 2
    assert not Path("named.json").exists()


def test_that_no_box_is_to_be_named_is_no_error(card):
    said = succeed("predict", *OPTIONS, "--results", "named.json", "--min-confidence", "1")
    assert "found.json: no box in it is to be named" in said
    assert results()["images"] == card["images"]


def test_our_file_is_a_detectors_file_again(card):
    """The round trip: what was written is read, gives the same boxes, and comes out the same."""
    succeed("predict", *OPTIONS, "--results", "named.json")
    again = ("--detections", "named.json", "--model", "model.onnx", "card", "--results", "again.json")
    assert succeed_json("predict", *again)["boxes"] == 2
    assert Path("again.json").read_bytes() == Path("named.json").read_bytes()
    assert set(predictions()) == {"day/IMG_0002.PNG/0", "night/IMG_0001.JPG/0"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_whole_photos_become_results_and_those_a_detectors_file(card, ranks):
    Path("card/broken.jpg").write_text("no photo")
    words = ("--model", "model.onnx", "card", "--results", "named.json")
    done = birdsonnx("predict", *words, ranks=ranks)
    assert done.returncode == 1
    assert "wrote named.json" in done.stdout
    images = results()["images"]
    assert [image["file"] for image in images] == ["broken.jpg", *sorted(BOXES)]
    assert images[0]["failure"].startswith("not an image")
    whole = predictions()
    boxes = ("--detections", "named.json", "--model", "model.onnx", "card", "--results", "again.json")
    assert succeed_json("predict", *boxes, "--overwrite", "--no-crop-square")["boxes"] == 3
    again = predictions()
    assert {name.removesuffix("/0") for name in again} == set(whole)
    for name, log_probs in again.items():
        np.testing.assert_array_equal(log_probs, whole[name.removesuffix("/0")])
    assert results("again.json")["images"] == images


def test_the_same_command_replaces_its_results_and_no_others(card):
    words = (*OPTIONS, "--results", "named.json")
    assert "wrote named.json" in succeed("predict", *words)
    assert "replaced named.json" in succeed("predict", *words)
    Path("named.json").write_text("{}")
    assert "named.json is there, and is no result of birdsonnx" in refused("predict", *words)
    assert Path("named.json").read_text() == "{}"
    assert "replaced named.json" in succeed("predict", *words, "--overwrite")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--min-confidence", "0.3"),
            "--min-confidence is for the boxes of --detections, and there are none",
        ),
        (("--crop-padding", "0.3"), "--crop-padding is for the boxes"),
        (("--no-crop-square",), "--crop-square is for the boxes"),
        (("--detection-categories", "animal"), "--detection-categories is for the boxes"),
        (("--detections", "found.json", "--sort", "sorted"), "--sort places whole photos"),
        (("--detections", "found.json", "--detection-categories", " , "), "names no category"),
        (
            ("--detections", "found.json", "--detection-categories", "bird"),
            'has no category "bird", but "animal"',
        ),
        (("--detections", "found.json", "--results", "./found.json"), "is the file of --detections too"),
        (("--csv", "x", "--results", "x"), "--results x: is the file of --csv too"),
        (("--detections", "nowhere.json"), "nowhere.json: there is no such file"),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_options_that_do_not_fit_are_refused(card, words, line, ranks):
    if ranks == 2 and "bird" not in words:
        pytest.skip("one of them is enough under mpirun")
    assert line in refused("predict", "card", "--model", "model.onnx", *words, ranks=ranks)
    assert not Path("predictions").exists()


def test_other_options_make_another_command(card):
    succeed("predict", *OPTIONS)
    assert "predictions/output_2.h5" in succeed("predict", *OPTIONS, "--no-crop-square")
    assert "replacing predictions/output_2.h5" in succeed("predict", *OPTIONS, "--no-crop-square")


def test_a_report_of_boxes_shows_their_photos(card):
    said = succeed("predict", *OPTIONS)
    assert "next: birdsonnx report predictions/output_1.h5 --photos card\n" in said
    said = succeed("report", "predictions/output_1.h5", "--photos", "card")
    assert "2 thumbnails" in said


VALIDATE = """
import json, sys
from megadetector.postprocessing.validate_batch_results import validate_batch_results
print(json.dumps([validate_batch_results(name)["validation_results"] for name in sys.argv[1:]]))
"""


def test_megadetectors_own_validator_takes_them(card):
    """MEGADETECTOR_PYTHON: an interpreter that has the package `megadetector`, in an environment of its
    own."""
    python = os.environ.get("MEGADETECTOR_PYTHON", sys.executable)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    Path("card/broken.jpg").write_text("no photo")
    birdsonnx("predict", "card", "--model", "model.onnx", "--results", "whole.json")
    succeed("predict", *OPTIONS, "--results", "named.json", "--top-k", "3")
    done = subprocess.run(
        [python, "-c", VALIDATE, "whole.json", "named.json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'megadetector'" in done.stderr:
        pytest.skip("the package megadetector is not installed")
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert (found["errors"], found["warnings"]) == ([], [])
