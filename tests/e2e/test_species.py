"""`predict --species`, `--threshold` and `--taxonomy`, and `evaluate` with them, as a user runs them."""

import csv
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import birdsonnx as api
from birdsonnx.model.model_file import BirdModel
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.conftest import REAL_DATA, needs_real_data
from tests.tiny import make_class_folders, tiny_model, with_known

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT", "DUCK")
PREDICT = ("predict", "photos", "--model", "model.onnx")
LEVELS = {"ANT BIRD": ("G", "F"), "BEE-EATER": ("H", "F"), "COOT": ("G", "F")}


def having(**changes: Any) -> BirdModel:
    model = tiny_model(4, CLASSES, seed=5)
    return BirdModel(model.proto, model.metadata.having(**changes), model.where)


@pytest.fixture(autouse=True)
def photos() -> None:
    make_class_folders(Path("photos"), CLASSES, per_class=4)
    having().save(Path("model.onnx"))
    Path("here.txt").write_text("# here\r\nCOOT\r\nant_bird\r\nEMU\r\n")
    Path("taxonomy.csv").write_text(
        "class,genus,family\n" + "".join(f"{name},{g},{f}\n" for name, (g, f) in LEVELS.items())
    )


def rows() -> dict[str, list[float]]:
    """What the network itself answers of each photo."""
    found: dict[str, list[float]] = {}
    with h5py.File("predictions/output_1.h5") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].astype(float).tolist()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def oracle(row: list[float], allowed: list[int], threshold: float) -> tuple[str, str, float, str]:
    """What is to be said of a photo, its level, its probability, and instead of what; by plain loops."""
    total = math.fsum(math.exp(row[index]) for index in allowed)
    left = {CLASSES[index]: math.exp(row[index]) / total for index in allowed}
    best = max(left, key=lambda name: left[name])
    first = CLASSES[row.index(max(row))]
    instead = "" if first == best else first
    if left[best] >= threshold:
        return best, "class", left[best], instead
    for place, level in enumerate(("genus", "family")):
        members: dict[str, list[str]] = {}
        for name in left:
            if name in LEVELS:
                members.setdefault(LEVELS[name][place], []).append(name)
        sums = {taxon: math.fsum(left[name] for name in names) for taxon, names in members.items()}
        taxon = max(sums, key=lambda each: sums[each])
        if sums[taxon] >= threshold and len(members[taxon]) > 1:
            return taxon, level, sums[taxon], instead
    return "unsure", "unsure", left[best], instead


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("listed", "threshold"), [(True, 0.6), (False, 0.45), (False, 0.9)])
def test_everything_that_is_written_says_the_same(ranks, listed, threshold):
    options = ["--threshold", threshold, "--taxonomy", "taxonomy.csv", *["--species", "here.txt"] * listed]
    options += ["--csv", "named.csv", "--sort", "sorted"]
    result = succeed_json(*PREDICT, *options, ranks=ranks)
    allowed = [0, 2] if listed else [0, 1, 2, 3]
    expected = {name: oracle(row, allowed, threshold) for name, row in rows().items()}
    assert len(expected) == 16
    if threshold < 0.9:
        assert len({level for _, level, _, _ in expected.values()}) > 1  # else it would show little

    assert [entry["name"] for entry in result["predictions"]] == sorted(expected)
    for entry in result["predictions"]:
        said, level, probability, instead = expected[entry["name"]]
        assert entry.get("level", "class") == level
        assert entry.get("said", entry["top"][0][0]) == said
        assert entry.get("probability", entry["top"][0][1]) == pytest.approx(probability, abs=1e-6)
        assert entry.get("instead_of", [""])[0] == instead
    titles = {
        name: said if level in ("class", "unsure") else f"{level} {said}"
        for name, (said, level, _, _) in expected.items()
    }
    assert result["counts"] == {
        title: list(titles.values()).count(title) for title in dict.fromkeys(titles.values())
    }
    changed = sum(bool(instead) for _, _, _, instead in expected.values())
    assert result["changed_by_species"] == (changed if listed else None)
    assert changed > 0 or not listed

    with Path("named.csv").open(newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    assert list(next(iter(table.values()))) == [
        *("name", "class_1", "probability_1", "said", "level", "said_probability"),
        *["instead_of"] * listed,
    ]
    for name, (said, level, probability, instead) in expected.items():
        assert (table[name]["said"], table[name]["level"]) == (said, level)
        assert float(table[name]["said_probability"]) == pytest.approx(probability, abs=2e-6)
        assert table[name].get("instead_of", "") == instead
    placed = [path.relative_to("sorted") for path in Path("sorted").rglob("*.png")]
    assert {Path(*path.parts[1:]).as_posix(): path.parts[0] for path in placed} == titles


def test_the_file_of_log_probabilities_is_the_same_whatever_is_said():
    succeed(*PREDICT)
    plain = Path("predictions/output_1.h5").read_bytes()
    text = succeed(*PREDICT, "--species", "here.txt", "--threshold", "0.7")
    assert Path("predictions/output_1.h5").read_bytes() == plain
    assert "replacing predictions/output_1.h5: it is of the same command" in text


def test_what_people_read():
    text = succeed(*PREDICT, "--species", "here.txt", "--threshold", "0.6", "--taxonomy", "taxonomy.csv")
    lines = text.splitlines()
    assert lines[0] == "here.txt: 'ant_bird' is 'ANT BIRD'"
    assert lines[1].startswith("here.txt: one name is none of the model's classes: 'EMU'")
    assert lines[2] == "species: 2 of 4 classes can occur (here.txt)"
    named = {line.split("  ")[0]: line for line in lines if line.partition("/")[0] in CLASSES}
    for name, row in rows().items():
        said, level, probability, instead = oracle(row, [0, 2], 0.6)
        top = oracle(row, [0, 2], 0)
        words = f"{top[0]} {top[2]:.4f}"
        why = f"not {instead}: not on the list" if instead else ""
        if level == "class":
            expected = words + f" ({why})" * bool(why)
        else:
            title = said if level == "unsure" else f"{level} {said} {probability:.4f}"
            expected = f"{title} ({words}{'; ' * bool(why)}{why})"
        assert named[name].endswith(f"  {expected}")
    changed = sum(oracle(row, [0, 2], 0.6)[3] != "" for row in rows().values())
    assert f"the list of species changed {changed} of 16 answers" in lines


FITTED = {"precision": 0.9, "values": [0.3, 0.5, 0.7, 0.9]}


def test_a_model_brings_thresholds_of_its_own():
    having(thresholds=FITTED).save(Path("model.onnx"))
    text = succeed(*PREDICT)
    assert text.startswith("thresholds: the model's own, for a precision of 0.9;")
    found = succeed_json(*PREDICT)["predictions"]
    unsure = []
    for entry, row in zip(found, rows().values(), strict=True):
        best = row.index(max(row))
        unsure.append(math.exp(row[best]) < FITTED["values"][best])
        assert entry.get("level", "class") == ("unsure" if unsure[-1] else "class")
    assert 0 < sum(unsure) < 16
    assert not any("level" in entry for entry in succeed_json(*PREDICT, "--threshold", "0")["predictions"])
    named = api.load("model.onnx").predict("photos")
    assert [each.level == "unsure" for each in named] == unsure
    assert named.notes[0].startswith("thresholds: the model's own")
    succeed(*PREDICT, "--taxonomy", "taxonomy.csv")

    figures = succeed_json("evaluate", "photos", "--model", "model.onnx")
    right = [
        entry["top"][0][0] == entry["name"].partition("/")[0]
        for entry, is_unsure in zip(found, unsure, strict=True)
        if not is_unsure
    ]
    assert figures["sure"] == {
        "photos": len(right),
        "coverage": len(right) / 16,
        "accuracy": pytest.approx(sum(right) / len(right)),
        "precision": 0.9,
        "threshold": None,
    }
    assert "sure" not in succeed_json("evaluate", "photos", "--model", "model.onnx", "--threshold", "0")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_model_may_say_unknown(ranks):
    """Here the score is the largest log-probability, so that a plain loop knows what is to be said."""
    least = math.log(0.45)
    with_known(having(thresholds={"precision": 0.9, "values": [0.6] * 4}), least).save(Path("model.onnx"))
    words = (*PREDICT, "--species", "here.txt", "--csv", "named.csv", "--sort", "sorted")
    result = succeed_json(*words, ranks=ranks)
    levels = []
    for entry, row in zip(result["predictions"], rows().values(), strict=True):
        said, level, _, instead = oracle(row, [0, 2], 0.6)
        if level != "class":
            said, level = "unsure", "unsure"
        if max(row) < least:
            said, level, instead = "unknown", "unknown", ""
        levels.append(level)
        assert entry.get("level", "class") == level
        assert entry.get("said", entry["top"][0][0]) == said
        assert entry.get("instead_of", [""])[0] == instead
        assert entry["known"] == pytest.approx(max(row), abs=1e-6)
        if level == "unknown":
            assert entry["probability"] == entry["top"][0][1]
    assert {"unknown", "class"} < set(levels)
    with Path("named.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["level"] for row in table] == levels
    assert [float(row["known"]) for row in table] == pytest.approx(
        [max(row) for row in rows().values()], abs=1e-6
    )
    with h5py.File("predictions/output_1.h5") as file:
        for entry in result["predictions"]:
            assert file[entry["name"]].attrs["known"] == np.float32(entry["known"])
    assert len(list(Path("sorted/unknown").rglob("*.png"))) == levels.count("unknown")


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluate_says_what_a_list_helps(ranks):
    succeed(*PREDICT)
    right = sum(oracle(row, [0, 2], 0)[0] == name.partition("/")[0] for name, row in rows().items())
    targets = (["photos", "--model", "model.onnx"], ["predictions/output_1.h5"])
    for target in targets if ranks == 1 else targets[:1]:
        words = ["evaluate", *target, "--species", "here.txt", "--threshold", "0.55"]
        figures = succeed_json(*words, ranks=ranks)
        assert figures["accuracy"] == right / 16
        assert figures["top5"] == 0.5
        sure = [oracle(row, [0, 2], 0.55)[1] == "class" for row in rows().values()]
        assert figures["sure"]["photos"] == sum(sure)
        text = succeed(*words)
        assert "8 photos show a class that is not on the list: none of them is right" in text
        assert f"sure enough (threshold 0.55) {sum(sure)} of 16" in text
    assert "--species here.txt --threshold 0.55 --csv table.csv" in text


def test_the_api_answers_as_the_verb():
    options = ["--species", "here.txt", "--threshold", "0.6", "--taxonomy", "taxonomy.csv"]
    result = succeed_json(*PREDICT, *options)["predictions"]
    model = api.load("model.onnx")
    for species in ("here.txt", Path("here.txt"), ["COOT", "ant_bird", "EMU"]):
        named = model.predict("photos", species=species, threshold=0.6, taxonomy="taxonomy.csv")
        for photo, entry in zip(named, result, strict=True):
            assert photo.said == entry.get("said", entry["top"][0][0])
            assert photo.level == entry.get("level", "class")
            assert photo.said_probability == entry.get("probability", entry["top"][0][1])
            assert photo.instead_of == entry.get("instead_of", [None])[0]
            assert (photo.class_name, photo.probability) == photo.top[0] == tuple(entry["top"][0])
            np.testing.assert_array_equal(photo.log_probs, np.float32(rows()[photo.name]))
        assert any("'EMU'" in note for note in named.notes)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--species", "nothing.txt"), "nothing.txt: cannot be read as a list of species"),
        (("--species", "photos"), "photos: cannot be read as a list of species"),
        (("--species", "none.txt"), "none.txt: none of its 1 names is a class of the model: 'EMU'"),
        (("--threshold", "1.5"), "threshold 1.5: a probability is from 0 to 1"),
        (("--threshold", "nan"), "threshold nan: a probability is from 0 to 1"),
        (("--taxonomy", "taxonomy.csv"), "taxonomy.csv: a taxonomy is for answers below a threshold"),
        (("--taxonomy", "taxonomy.csv", "--threshold", "0"), "with threshold 0 there are none"),
        (("--taxonomy", "bad.csv", "--threshold", "0.5"), "bad.csv: lines 2 and 3: the genus 'G' has two"),
        (
            ("--taxonomy", "slash.csv", "--threshold", "0.5", "--sort", "sorted"),
            "--sort: 'genus G/H' cannot be a folder: it holds '/' or NUL",
        ),
    ],
)
def test_what_cannot_be_gone_by_is_refused_before_any_work(ranks, options, said):
    if ranks == 2 and options[0] == "--threshold":
        pytest.skip("as with one rank")
    Path("none.txt").write_text("EMU\n")
    Path("bad.csv").write_text("class,genus,family\nCOOT,G,F\nDUCK,G,E\n")
    Path("slash.csv").write_text("class,genus\nCOOT,G/H\n")
    assert said in refused(*PREDICT, *options, ranks=ranks)
    assert not Path("predictions").exists()
    assert not Path("sorted").exists()


def test_a_class_called_unsure_has_a_folder_of_its_own():
    names = ("unsure", *CLASSES[1:])
    model = tiny_model(4, names, seed=5)
    model.save(Path("model.onnx"))
    counts = succeed_json(*PREDICT, "--threshold", "1", "--sort", "sorted")["counts"]
    assert counts == {"unsure (no class)": 16}
    assert [path.name for path in Path("sorted").iterdir()] == ["unsure (no class)"]


def test_names_from_files_do_not_move_the_cursor():
    Path("here.txt").write_text("COOT\n\x1b[2J\x1b]0;x\x07EMU\n")
    done = birdsonnx(*PREDICT, "--species", "here.txt")
    assert "\x1b" not in done.stdout + done.stderr


@needs_real_data
def test_on_real_photos_a_list_and_a_threshold_only_help():
    """A network that is not trained on them names photos of two species; the list leaves those two."""
    test = REAL_DATA / "birds12" / "test"
    names = sorted(path.name for path in test.iterdir())
    tiny_model(len(names), names, seed=1).save(Path("model.onnx"))
    Path("data").mkdir()
    for name in names[:2]:
        (Path("data") / name).symlink_to(test / name)
    Path("here.txt").write_text("\n".join(names[:2]))
    plain = succeed_json("evaluate", "data", "--model", "model.onnx")
    helped = succeed_json("evaluate", "data", "--model", "model.onnx", "--species", "here.txt")
    assert helped["photos"] == 40
    assert helped["accuracy"] >= plain["accuracy"]
    assert helped["loss"] < plain["loss"]
