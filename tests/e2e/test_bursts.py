"""`predict --columns` and `--sequence-gap` as a user runs them, on a card of two cameras."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.shots import save, taken
from tests.tiny import photo, tiny_model

CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]

TIMES = {"site1/100": [0, 5, 70, 71, 400, None, 401], "site2": [2, 40, 80, 120], ".": [60, 61]}
SEQUENCES = [  # of a gap of 60 s, without the damaged photo, which lies between two of its sequence
    ["IMG_0.JPG", "IMG_1.JPG"],
    ["site1/100/IMG_0.JPG", "site1/100/IMG_1.JPG"],
    ["site1/100/IMG_2.JPG", "site1/100/IMG_3.JPG"],
    ["site1/100/IMG_4.JPG", "site1/100/IMG_6.JPG"],
    ["site1/100/IMG_5.JPG"],
    ["site2/IMG_0.JPG", "site2/IMG_1.JPG", "site2/IMG_3.JPG"],
]
DAMAGED = "site2/IMG_2.JPG"
PHOTOS = sum(map(len, SEQUENCES))


@pytest.fixture
def card() -> list[str]:
    """Photos with times, one of them damaged, and a model that is not sure of them."""
    generator = np.random.default_rng(5)
    for folder, times in TIMES.items():
        for number, after in enumerate(times):
            save(photo(number, generator), f"card/{folder}/IMG_{number}.JPG", taken(after))
    path = Path("card") / DAMAGED
    path.write_bytes(path.read_bytes()[:-200])
    tiny_model(3, CLASSES, seed=9).save(Path("model.onnx"))
    return ["card", "--model", "model.onnx"]


def own() -> dict[str, np.ndarray]:
    """The log-probabilities in the predictions file."""
    found = {}
    with h5py.File("predictions/output_1.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def rows(path: str = "named.csv") -> dict[str, dict[str, str]]:
    with Path(path).open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def shared(log_probs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The oracle: of each photo the probabilities that its sequence has, by their geometric means."""
    found = {}
    for names in SEQUENCES:
        product = np.ones(3)
        for name in names:
            product *= np.exp(log_probs[name].astype(np.float64))
        mean = product ** (1 / len(names))
        found |= dict.fromkeys(names, mean / mean.sum())
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_burst_has_one_verdict_and_each_photo_its_own_log_probs(card, ranks):
    done = birdsonnx("predict", *card, "-o", "alone", "--csv", "alone.csv")
    assert done.returncode == 1, done.stderr
    assert f"refused: card/{DAMAGED}" in done.stderr
    options = ["--csv", "named.csv", "--sequence-gap", "60", "--sort", "sorted", "--json"]
    done = birdsonnx("predict", *card, *options, ranks=ranks, fresh=True)
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    with h5py.File("alone/output_1.h5") as before:
        for name, log_probs in own().items():
            np.testing.assert_allclose(log_probs, before[name][()], atol=1e-5)
    expected = shared(own())
    found = rows()
    assert sorted(found) == sorted(expected)
    assert "sequence" not in next(iter(rows("alone.csv").values()))
    for name, probabilities in expected.items():
        best = int(probabilities.argmax())
        assert found[name]["class_1"] == CLASSES[best]
        assert float(found[name]["probability_1"]) == pytest.approx(probabilities[best], abs=2e-6)
        assert (Path("sorted") / CLASSES[best] / name).exists()
    numbers = [{int(found[name]["sequence"]) for name in names} for names in SEQUENCES]
    assert [len(each) for each in numbers] == [1] * len(SEQUENCES)
    assert sorted(set.union(*numbers)) == [1, 2, 3, 4, 5, 6]
    assert (said["photos"], said["sequences"], said["without_time"]) == (PHOTOS, 6, 1)
    for entry in said["predictions"]:
        row = found[entry["name"]]
        assert entry["sequence"] == int(row["sequence"])
        assert entry["top"][0][0] == row["class_1"]
    alone = rows("alone.csv")
    assert any(alone[name]["class_1"] != found[name]["class_1"] for name in found)


@pytest.mark.parametrize("ranks", [1, 2])
def test_columns_on_request(card, ranks):
    done = birdsonnx(
        "predict", *card, "--csv", "named.csv", "--columns", "path,date", "--columns", "camera", ranks=ranks
    )
    assert done.returncode == 1, done.stderr
    found = rows()
    assert len(found) == PHOTOS
    row = found["site1/100/IMG_2.JPG"]
    assert list(row) == [
        *("name", "class_1", "probability_1"),
        *("folder_1", "folder_2", "file", "date", "camera_make", "camera_model", "camera_serial"),
    ]
    assert list(row.values())[3:] == ["site1", "100", "IMG_2.JPG", "2026-05-04T12:01:10", "", "TrapCam", ""]
    assert list(found["IMG_0.JPG"].values())[3:6] == ["", "", "IMG_0.JPG"]
    assert found["site1/100/IMG_5.JPG"]["date"] == ""


def test_the_summary_says_how_many_sequences_there_are(card):
    done = birdsonnx("predict", *card, "--sequence-gap", "60")
    line = "6 sequences of photos at most 60 s apart, each named as one; 1 photo without a time"
    assert line in done.stdout.splitlines()


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluate_counts_what_the_bursts_say(card, ranks):
    generator = np.random.default_rng(3)
    right = {}
    for label, name in enumerate(CLASSES):
        for number in range(8):
            path = f"test/{name}/{number}.jpg"
            save(photo(label + (number % 4 == 0), generator), path, taken(number // 4 * 1000 + number))
            right[f"{name}/{number}.jpg"] = label
    model = ["--model", "model.onnx"]
    succeed("predict", "test", *model)
    log_probs = own()
    hits, loss = 0, 0.0
    for name, label in right.items():
        folder, _, file = name.partition("/")
        first = int(file[0]) // 4 * 4
        mean = np.mean([log_probs[f"{folder}/{first + k}.jpg"].astype(np.float64) for k in range(4)], 0)
        hits += int(mean.argmax() == label)
        loss -= mean[label] - np.log(np.exp(mean).sum())
    found = succeed_json("evaluate", "test", *model, "--sequence-gap", "60", ranks=ranks)
    assert (found["photos"], found["sequences"], found["without_time"]) == (24, 6, 0)
    assert found["accuracy"] == pytest.approx(hits / 24)
    assert found["loss"] == pytest.approx(loss / 24, abs=1e-5)
    assert "sequences" not in succeed_json("evaluate", "test", *model)
    text = succeed("evaluate", "test", *model, "--sequence-gap", "60")
    assert "6 sequences of photos at most 60 s apart, each named as one\n" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--columns", "date"], "--columns is for the file of --csv, and there is none"),
        (["--csv", "named.csv", "--columns", "gps"], "--columns 'gps' is none of date, camera, place"),
        (["--sequence-gap", "nan"], "--sequence-gap nan: give the seconds"),
        (["--sequence-gap=-1"], "--sequence-gap -1: give the seconds"),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_refusals(card, words, said, ranks):
    assert said in refused("predict", *card, *words, ranks=ranks)
    assert not Path("predictions").exists()
    assert not Path("named.csv").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_without_any_time_there_are_no_bursts(card, ranks):
    line = refused("predict", "card/site1/100/IMG_5.JPG", *card[1:], "--sequence-gap", "60", ranks=ranks)
    assert "no photo says when it was taken" in line
    assert not Path("predictions/output_1.h5").exists()


def test_evaluate_needs_a_folder_for_bursts(card):
    birdsonnx("predict", *card)
    line = refused("evaluate", "predictions/output_1.h5", "--sequence-gap", "60")
    assert "--sequence-gap is for a folder" in line


def test_two_folders_are_two_cameras_also_where_no_name_says_the_folder(card):
    generator = np.random.default_rng(7)
    for name in ("left/IMG_1.JPG", "right/IMG_2.JPG", "right/IMG_3.JPG"):
        save(photo(1, generator), name, taken(0))
    said = succeed_json("predict", "left", "right", *card[1:], "--sequence-gap", "60", "--csv", "named.csv")
    assert said["sequences"] == 2
    assert [row["sequence"] for row in rows().values()] == ["1", "2", "2"]
    assert list(rows()) == ["IMG_1.JPG", "IMG_2.JPG", "IMG_3.JPG"]
