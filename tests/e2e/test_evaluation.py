"""`evaluate` as a user runs it: which photos were named wrongly, by which model, and what it refuses."""

import csv
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.extras import how_to_install
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.tiny import make_class_folders, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")


@pytest.fixture
def untrained(tmp_path) -> Path:
    """`model.onnx`, whose answers are chance, 30 photos in `data/test`, and what it says of them."""
    make_class_folders(Path("data/test"), CLASSES, per_class=10)
    make_class_folders(Path("data/train"), CLASSES, per_class=1)
    tiny_model(3, CLASSES).save(Path("model.onnx"))
    succeed("predict", "data/test", "--model", "model.onnx")
    return tmp_path


def wrong_photos() -> list[tuple[str, str, str]]:
    """Name, class and named class of each, the surest first, by a plain loop over the predictions."""
    found = []
    with h5py.File("predictions/output_1.h5") as file:
        for label in CLASSES:
            for photo in file[label]:
                log_probs = file[label][photo][()]
                named = CLASSES[int(np.argmax(log_probs))]
                if named != label:
                    found.append((-log_probs.max(), f"{label}/{photo}", label, named))
    return [entry[1:] for entry in sorted(found)]


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        (["data/test", "--model", "model.onnx"], 1),
        (["data/test", "--model", "model.onnx"], 2),
        (["predictions/output_1.h5"], 1),
    ],
)
def test_the_photos_that_were_named_wrongly(untrained, words, ranks):
    expected = wrong_photos()
    assert len(expected) > 10
    found = succeed_json("evaluate", *words, ranks=ranks)
    assert [(each["name"], each["class"], each["named"]) for each in found["wrong"]] == expected
    assert len(found["wrong"]) == found["photos"] - sum(row["correct"] for row in found["per_class"])

    text = succeed("evaluate", *words, "--csv", "table.csv", ranks=ranks)
    lines = text.split("named wrongly, the surest first:\n")[1].splitlines()
    surest = found["wrong"][0]
    assert lines[0] == (
        f"{surest['name']:<{max(len(name) for name, *_ in expected[:20])}}  {surest['named']} "
        f"{surest['named_probability']:.4f}, right class {surest['class_probability']:.4f}"
    )
    with Path("table.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(CLASSES)
    with Path("table_mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["class"], row["named"]) for row in rows] == expected
    for row, each in zip(rows, found["wrong"], strict=True):
        assert float(row["named_probability"]) == pytest.approx(each["named_probability"], abs=1e-6)
        assert float(row["class_probability"]) == pytest.approx(each["class_probability"], abs=1e-6)


def test_of_many_mistakes_the_surest_are_shown(untrained):
    make_class_folders(Path("data/test"), CLASSES, per_class=40)
    found = succeed_json("evaluate", "data/test", "--model", "model.onnx")["wrong"]
    text = succeed("evaluate", "data/test", "--model", "model.onnx")
    assert f"and {len(found) - 20} more; --csv FILE lists them all" in text
    assert found[19]["name"] in text
    assert not any(each["name"] in text for each in found[20:])
    text = succeed("evaluate", "data/test", "--model", "model.onnx", "--csv", "t.csv")
    assert f"and {len(found) - 20} more; all are in t_mistakes.csv" in text


def test_the_model_is_named_in_every_result(untrained):
    digest = succeed_json("info", "model.onnx")["sha256"]
    for words in (["predict", "data/test"], ["evaluate", "data/test"]):
        found = succeed_json(*words, "--model", "model.onnx")
        assert (found["model"], found["model_sha256"]) == ("model.onnx", digest)
        assert "\nmodel: model.onnx\n" in "\n" + succeed(*words, "--model", "model.onnx")
    with h5py.File("predictions/output_1.h5", "r+") as file:
        assert (file.attrs["model"], file.attrs["model_sha256"]) == ("model.onnx", digest)
    assert "model: model.onnx\n" in succeed("evaluate", "predictions/output_1.h5")
    with h5py.File("predictions/output_1.h5", "r+") as file:  # as an older version left it
        del file.attrs["model"]
    assert f"model: the one of SHA-256 {digest[:16]}… (its" in succeed("evaluate", "predictions/output_1.h5")
    found = succeed_json("evaluate", "predictions/output_1.h5")
    assert (found["model"], found["model_sha256"]) == (None, digest)
    with h5py.File("predictions/output_1.h5", "r+") as file:
        del file.attrs["model_sha256"]
    assert "model: unknown" in succeed("evaluate", "predictions/output_1.h5")


def test_the_folder_above_the_sets_says_which_one_is_meant(untrained):
    line = refused("evaluate", "data", "--model", "model.onnx")
    assert "give data/test, or name the set: --tag test" in line
    assert succeed_json("evaluate", "data", "--tag", "test", "--model", "model.onnx")["photos"] == 30


def test_a_target_that_is_not_there(untrained):
    line = refused("evaluate", "dta/test", "--model", "model.onnx")
    assert line == "birdsonnx: dta/test: there is no such file or folder; did you mean 'data/test'?"
    assert "did you mean 'predictions/output_1.h5'" in refused("evaluate", "prediction/output_1.h5")


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        (["evaluate", "data/test", "--plot", "x.png"], 1),
        (["evaluate", "data/test", "--plot", "x.png"], 2),
        (["benchmark", "model.onnx", "--plot", "x.png"], 1),
        (["plot", "out.txt"], 1),
        (["plot", "--augmented", "config.json"], 1),
    ],
)
def test_without_matplotlib_no_work_is_done_for_a_plot(untrained, words, ranks):
    """Not even what would be refused: there are no such logs, and no such config."""
    Path("hidden").mkdir()
    Path("hidden/sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: (\n"
        "    None if name == 'matplotlib' else found(name, *more))\n"
    )
    path = f"hidden{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = birdsonnx(*words, "--json", ranks=ranks, environment={"PYTHONPATH": path}, fresh=True)
    assert done.returncode == 2
    assert done.stderr == f"birdsonnx: plots need matplotlib; {how_to_install('plot')}\n"
    assert json.loads(done.stdout) == {"error": done.stderr.removeprefix("birdsonnx: ").strip()}


def test_the_last_line_says_what_to_do_next(untrained):
    lines = succeed("predict", "data/test", "--model", "model.onnx").splitlines()
    assert lines[-1] == "next: birdsonnx evaluate predictions/output_1.h5"
    lines = succeed(*lines[-1].split()[2:]).splitlines()
    assert lines[-1] == "next: birdsonnx evaluate predictions/output_1.h5 --csv table.csv"
    lines = succeed(*lines[-1].split()[2:]).splitlines()
    assert lines[-1] == "next: look at the photos of table_mistakes.csv, the surest mistakes first"
    Path("data/test/COOT/001.png").rename("one.png")
    text = succeed("predict", "one.png", "--model", "model.onnx", "-o", "other")
    assert "next:" not in text
    Path("mine").mkdir()
    Path("one.png").rename("mine/one.png")
    lines = succeed("predict", "mine", "--model", "model.onnx", "-o", "mine out").splitlines()
    assert lines[-1] == "next: birdsonnx report 'mine out/output_1.h5' --photos mine"


def test_options_for_a_folder_or_a_file_alone_are_refused(untrained):
    Path("labels.csv").write_text("name,class\n")
    folder = ("evaluate", "data/test", "--model", "model.onnx")
    for ranks in (1, 2):
        said = refused(*folder, "--labels", "labels.csv", ranks=ranks)
        assert said.startswith("birdsonnx: --labels is for a predictions file")
    assert "--threads is for a folder" in refused("evaluate", "predictions/output_1.h5", "--threads", "1")
