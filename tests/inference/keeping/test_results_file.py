"""Results in MegaDetector's format: what verdicts become, and whose files are replaced."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdsonnx.errors import ArtifactError
from birdsonnx.images import detections, found_boxes
from birdsonnx.images.crops import BoxRequest
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judged, Verdict
from birdsonnx.inference.keeping import results_file
from birdsonnx.inference.keeping.results_file import Origin, writing
from tests.conftest import disk_of
from tests.megadetector import detected, require_valid, with_

NAMES = ("ANT BIRD", "BEE-EATER", "COOT")
ORIGIN = Origin("models/birds.onnx", "ab" * 32, NAMES)
LOG_PROBS = np.zeros(3, np.float32)


def judged(name: str, *top: tuple[str, float], **options: Any) -> Judged:
    said, probability = top[0]
    verdict = Verdict(options.pop("said", said), options.pop("probability", probability), top, **options)
    return Judged(Photo(Path(name), name), LOG_PROBS, verdict)


def written(*outcomes: Judged | tuple[str, str], origin: Origin = ORIGIN) -> dict[str, Any]:
    with writing(Path("out.json"), origin) as writer:
        for outcome in outcomes:
            if isinstance(outcome, Judged):
                writer.add(outcome)
            else:
                name, reason = outcome
                writer.refuse(Photo(Path(reason.partition(": ")[0]), name), reason)
    found: dict[str, Any] = json.loads(Path("out.json").read_text())
    require_valid(found)
    return found


def test_a_whole_photo_is_one_box():
    found = written(judged("b.jpg", ("COOT", 0.9), ("ANT BIRD", 0.0999999)), judged("a.jpg", ("COOT", 1.0)))
    assert found["images"] == [
        {
            "file": "a.jpg",
            "detections": [
                {"category": "1", "conf": 1.0, "bbox": [0.0, 0.0, 1.0, 1.0], "classifications": [["2", 1.0]]}
            ],
        },
        {
            "file": "b.jpg",
            "detections": [
                {
                    "category": "1",
                    "conf": 1.0,
                    "bbox": [0.0, 0.0, 1.0, 1.0],
                    "classifications": [["2", 0.9], ["0", 0.1]],
                }
            ],
        },
    ]
    assert found["classification_categories"] == {"0": "ANT BIRD", "1": "BEE-EATER", "2": "COOT"}
    assert found["detection_categories"] == {"1": "animal", "2": "person", "3": "vehicle"}
    assert found["info"] == {
        "format_version": "1.5",
        "classifier": "birds.onnx",
        "classifier_metadata": {
            "birdsonnx": {"version": results_file.birdsonnx.__version__, "model_sha256": "ab" * 32}
        },
    }


def test_a_refused_photo_is_a_failure_without_its_place_on_this_disk():
    [image] = written(("a.jpg", "a.jpg: no such file (a broken link?)"))["images"]
    assert image == {"file": "a.jpg", "failure": "no such file (a broken link?)", "detections": None}


def test_what_is_said_instead_of_a_class_is_a_category_of_its_own_and_comes_first():
    found = written(
        judged("a.jpg", ("COOT", 0.4), ("ANT BIRD", 0.3), said="unknown", level="unknown"),
        judged("b.jpg", ("COOT", 0.5), said="Rallidae", probability=0.7, level="family"),
        judged("c.jpg", ("COOT", 0.9)),
    )
    assert found["classification_categories"] == {
        "0": "ANT BIRD",
        "1": "BEE-EATER",
        "2": "COOT",
        "3": "Rallidae",
        "4": "unknown",
    }
    assert [image["detections"][0]["classifications"] for image in found["images"]] == [
        [["4", 0.4], ["2", 0.4], ["0", 0.3]],
        [["3", 0.7], ["2", 0.5]],
        [["2", 0.9]],
    ]


def test_the_order_in_which_photos_come_does_not_matter():
    outcomes = [judged("a", ("COOT", 0.4), said="unknown", level="unknown"), ("c", "c: bad")]
    outcomes += [judged("b", ("COOT", 0.4), said="few", level="unsure")]
    written(*outcomes)
    first = Path("out.json").read_bytes()
    written(*reversed(outcomes))
    assert Path("out.json").read_bytes() == first


def test_a_name_that_is_no_unicode_is_written_as_one():
    name = os.fsdecode(b"\xff.jpg")
    [image] = written((name, f"{name}: it cannot be"))["images"]
    assert image["file"] == "\\udcff.jpg"


def of_detector(content: dict[str, Any], *photos: str) -> Origin:
    Path("found.json").write_text(json.dumps(content))
    request = BoxRequest(Path("found.json"))
    found = detections.read(request)
    found_boxes.find(found, [Photo(Path(name), name) for name in photos], request, lambda _: None)
    return Origin("m.onnx", "", NAMES, request, found)


def test_a_detectors_file_comes_back_as_it_was_with_our_classes():
    content = detected(
        **{"b.jpg": [[0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]], "a.jpg": [[0, 0, 1, 1]], "é": []}
    )
    content = {"site": {"pond": [1, 2.5]}} | with_(content, "images.0.detections.1.conf", 0.1)
    content["images"][0] |= {"datetime": "2026:05:01 10:00:00", "max_detection_conf": 0.9}
    content["images"][0]["detections"][1]["track"] = 7
    found = written(
        judged("a.jpg/0", ("BEE-EATER", 0.8)),
        judged("b.jpg/0", ("COOT", 0.7)),
        origin=of_detector(content, "a.jpg", "b.jpg"),
    )
    expected = with_(content, "images.0.detections.0.classifications", [["2", 0.7]])
    expected["images"][1]["detections"][0]["classifications"] = [["1", 0.8]]
    assert found["images"] == expected["images"]
    assert found["site"] == content["site"]
    own = {key: found["info"].pop(key) for key in ("classifier", "classifier_metadata")}
    assert found["info"] == content["info"]
    cut = {"min_confidence": 0.2, "crop_padding": 0, "crop_square": True}
    assert own["classifier_metadata"]["birdsonnx"].items() >= cut.items()


def test_another_classifiers_results_are_replaced():
    content = detected(**{"a.jpg": [[0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]})
    content["classification_categories"] = {"0": "cat"}
    content["classification_category_descriptions"] = {"0": "felis"}
    content["info"] |= {"classifier": "cats.pt", "classifier_metadata": {"typical": 0.5}}
    content["images"][0]["detections"][0] |= {"classifications": [["0", 0.9]]}
    content["images"][0]["detections"][1] |= {"classifications": [["0", 0.9]], "conf": 0.1}
    found = written(judged("a.jpg/0", ("COOT", 0.7)), origin=of_detector(content, "a.jpg"))
    assert "felis" not in json.dumps(found)
    assert "cat" not in found["classification_categories"].values()
    assert [each.get("classifications") for each in found["images"][0]["detections"]] == [[["2", 0.7]], None]


def test_an_image_fails_where_none_of_its_boxes_has_an_answer():
    content = detected(**{"a.jpg": [[0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]], "b.jpg": [[0, 0, 1, 1]]})
    bad = [("a.jpg/0", "a.jpg: broken"), ("a.jpg/1", "a.jpg: broken"), ("b.jpg", "b.jpg: not there")]
    a, b = written(*bad, origin=of_detector(content, "a.jpg"))["images"]
    assert (a["failure"], a["detections"]) == ("broken", None)
    assert b == content["images"][1]
    one = [judged("a.jpg/0", ("COOT", 0.7)), ("a.jpg/1", "a.jpg: the box 1 has no area")]
    a, _ = written(*one, origin=of_detector(content, "a.jpg", "b.jpg"))["images"]
    assert [each.get("classifications") for each in a["detections"]] == [[["2", 0.7]], None]
    assert "failure" not in a


def test_an_image_that_is_not_there_has_nothing_of_a_photo_called_none():
    content = detected(**{"None": [[0, 0, 1, 1]], "gone.jpg": [[0, 0, 1, 1]]})
    found = written(judged("None/0", ("COOT", 0.7)), origin=of_detector(content, "None"))
    assert found["images"][0]["detections"][0]["classifications"] == [["2", 0.7]]
    assert found["images"][1] == content["images"][1]


def test_only_own_files_are_replaced():
    own = Path("out.json")
    results_file.require_own(own, overwrite=False)  # there is none
    written(judged("a.jpg", ("COOT", 1.0)))
    results_file.require_own(own, overwrite=False)
    content = detected(**{"a.jpg": [[0, 0, 1, 1]]})
    written(judged("a.jpg/0", ("COOT", 1.0)), origin=of_detector(content, "a.jpg"))
    results_file.require_own(own, overwrite=False)
    for content in ("", "{}", json.dumps(detected())):
        own.write_text(content)
        with pytest.raises(ArtifactError, match="is there, and is no result of birdsonnx"):
            results_file.require_own(own, overwrite=False)
        results_file.require_own(own, overwrite=True)
    Path("folder").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot write folder: no regular file"):
        results_file.require_own(Path("folder"), overwrite=False)


def test_a_full_disk_leaves_the_older_file():
    written(judged("a.jpg", ("COOT", 1.0)))
    older = Path("out.json").read_bytes()
    many = [judged(f"{number}.jpg", ("COOT", 1.0)) for number in range(2000)]
    with disk_of(40_000), pytest.raises(ArtifactError, match=r"cannot write out\.json"):
        written(*many)
    assert Path("out.json").read_bytes() == older
    assert sorted(path.name for path in Path().iterdir() if path.name != "user_cache") == ["out.json"]
