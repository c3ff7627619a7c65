"""`predict --sort` as a user runs it: photos in folders of the classes that they were named."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from birdsonnx.model.model_file import load
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.tiny import make_class_folders, tiny_model

CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]


@pytest.fixture
def cards() -> list[str]:
    """Two cards with the same names on them, and a model."""
    for card in ("cardA", "cardB"):
        make_class_folders(Path(card), ["100", "101", "102"], per_class=4, seed=ord(card[-1]))
    tiny_model(3, CLASSES, seed=9).save(Path("model.onnx"))
    return ["cardA", "cardB", "--model", "model.onnx"]


def named() -> dict[str, str]:
    """What the predictions say: the class of each photo."""
    found = {}
    with h5py.File("predictions/output_1.h5") as file:
        names = list(file.attrs["classes"])
        file.visititems(
            lambda name, item: (
                found.update({name: names[item[()].argmax()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def placed(folder: str = "sorted") -> dict[str, str]:
    paths = [path.relative_to(folder) for path in Path(folder).rglob("*.png")]
    return {Path(*path.parts[1:]).as_posix(): path.parts[0] for path in paths}


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_photo_is_where_the_predictions_say(cards, ranks):
    text = succeed("predict", *cards, "--sort", "sorted", ranks=ranks)
    assert len(named()) == 24
    assert len(set(named().values())) > 1
    assert placed() == named()
    for name, label in placed().items():
        assert (Path("sorted") / label / name).is_symlink()
        assert (Path("sorted") / label / name).samefile(name)
    classes = len(set(named().values()))
    assert text.splitlines()[-1] == f"sorted 24 photos into {classes} folders in sorted (links)"
    assert sorted(path.name for path in Path("sorted").iterdir()) == sorted(set(named().values()))


def test_copies_json_and_refused_photos(cards):
    Path("cardA/100/002.png").write_bytes(b"nothing")
    done = birdsonnx("predict", *cards, "--sort", "new/sorted", "--sort-copy", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["sorted"] == "new/sorted"
    found = placed("new/sorted")
    assert found == named()
    assert len(found) == 23
    for name, label in found.items():
        copy = Path("new/sorted") / label / name
        assert not copy.is_symlink()
        assert copy.read_bytes() == Path(name).read_bytes()


def test_sorted_photos_can_be_split_and_evaluated(cards):
    succeed("predict", *cards, "--sort", "sorted")
    assert succeed_json("evaluate", "sorted", "--model", "model.onnx")["accuracy"] == 1
    assert sum(succeed_json("split", "sorted", "data")["photos"].values()) == 24
    assert all(path.is_file() for path in Path("data").rglob("*.png"))


def test_what_is_refused_leaves_everything_as_it_was(cards):
    succeed("predict", *cards, "--sort", "sorted")
    before = placed()
    assert "sorted: exists and is not empty; give a new folder" in refused(
        "predict", *cards, "--sort", "sorted"
    )
    assert placed() == before
    shutil.rmtree("predictions")
    for words, said in (
        (["--sort", "cardA/sorted"], "cardA/sorted: lies in cardA"),
        (["--sort", "predictions"], "would lie among the photos of --sort"),
        (["--sort", "other", "--csv", "other/names.csv"], "would lie among the photos of --sort"),
        (["--sort-copy"], "--sort-copy is for the folder of --sort"),
    ):
        for ranks in (1, 2):
            assert said in refused("predict", *cards, *words, ranks=ranks)
        assert not Path("predictions").exists()
    pattern = ("predict", "card[A]", "--model", "model.onnx", "--sort", "cardA/sorted")
    assert "cardA/sorted: lies in cardA" in refused(*pattern)
    tiny_model(3, ["COOT", "WREN/WREN", "AUK"]).save(Path("model.onnx"))
    said = refused("predict", *cards, "--sort", "other").partition("--sort: ")[2]
    assert said == "'WREN/WREN' cannot be a folder: it holds '/' or NUL; use --csv instead"
    assert load(Path("model.onnx")).metadata.classes == ("COOT", "WREN/WREN", "AUK")


@pytest.mark.skipif(sys.platform != "linux", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_can_be_run_again(cards, number):
    """Stopped while it places copies, into a folder that was there."""
    Path("sorted").mkdir()
    code = (
        "import shutil, sys, time; copy = shutil.copyfile\\n"
        "def slow(*words):\\n    open('started', 'w').close(); time.sleep(0.2); return copy(*words)\\n"
        "shutil.copyfile = slow\\n"
        "from birdsonnx.__main__ import main; sys.argv[0] = 'birdsonnx'; main()"
    ).replace("\\n", "\n")
    words = ["predict", *cards, "--sort", "sorted", "--sort-copy"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL)
    try:
        while not Path("started").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
    assert not placed() or number == signal.SIGKILL
    succeed(*words)
    assert placed() == named()
    assert not list(Path("sorted").glob(".*"))
