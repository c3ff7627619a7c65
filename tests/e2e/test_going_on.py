"""A prediction that was killed goes on: SIGKILL at random moments, then the files of one that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command import MPIRUN, birdsonnx
from tests.megadetector import detected
from tests.tiny import photo, tiny_model

PHOTOS = 330
REFUSED = (7, 8, 200)
CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]
WORDS = ("predict", "many", "--model", "model.onnx", "--csv", "names.csv", "--results", "named.json")
RESULTS = ("predictions/output_1.h5", "names.csv", "named.json")
PROGRESS = Path("predictions/output_1.h5.progress")

SLOWLY = """
import itertools, os, signal, sys, time
from birdsonnx.cli.app import main
from birdsonnx.inference import units
from birdsonnx.runtime.sessions import Session

units.PHOTOS_PER_UNIT = 8
run = Session.run

def killed_after(runs):
    counter = itertools.count()

    def slowly(self, feeds):
        if next(counter) == runs:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)
        return run(self, feeds)

    Session.run = slowly
"""

ALONE = (
    SLOWLY
    + """
import onnxruntime
from birdsonnx.cli import predict
from birdsonnx.inference import prediction  # before the forks
from birdsonnx.reporting import console, predictions

moments, sys.argv = [int(word) for word in sys.argv[1].split()], ["birdsonnx", *sys.argv[2:]]
kills = 0
for moment in moments:
    process = os.fork()
    if not process:
        killed_after(moment)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            main()
        finally:
            os._exit(0)
    kills += os.WIFSIGNALED(os.waitpid(process, 0)[1])
print(kills)
"""
)

OF_SEVERAL = (
    SLOWLY
    + """
killed_after(int(sys.argv[2]) if os.environ.get("PMI_RANK") == sys.argv[1] else 10**9)
sys.argv = ["birdsonnx", *sys.argv[3:]]
main()
"""
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model and photos, three of which are none."""
    folder = tmp_path_factory.mktemp("going_on")
    tiny_model(3, CLASSES).save(folder / "model.onnx")
    generator = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / "many" / f"{'day' if number % 2 else 'night'}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number in REFUSED:
            path.write_text("no picture")
        else:
            photo(number, generator, 40).save(path)
    return folder


@pytest.fixture
def many(made, tmp_path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def results() -> list[bytes]:
    return [Path(name).read_bytes() for name in RESULTS]


def uninterrupted(*words: str, ranks: int = 1) -> list[bytes]:
    """What a run that nobody kills writes; it is put away."""
    assert birdsonnx(*WORDS, *words, ranks=ranks).returncode == 1
    found = results()
    for name in RESULTS:
        Path(name).unlink()
    return found


def killed(moments: Sequence[int], *words: str) -> int:
    """How many runs, one after the other, were killed before their end, each when its engine had run so many
    times: about 80 runs name all photos, and 17 of them are under way, or wait to be taken."""
    command = [sys.executable, "-c", ALONE, " ".join(map(str, moments)), *WORDS, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


def stopped() -> None:
    """A run that has left progress behind."""
    assert killed([40]) == 1
    assert list(PROGRESS.iterdir())


def ended(*words: Any, ranks: int = 1) -> str:
    """The run that goes on; some photos are refused, so that its code is 1."""
    done = birdsonnx(*words, ranks=ranks)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == len(REFUSED), done.stderr
    return done.stdout


def rest() -> set[str]:
    return {path.name for path in Path("predictions").iterdir()}


def test_many_kills(many):
    expected = uninterrupted()
    generator = random.Random(5)
    assert killed([generator.randint(2, 17) for _ in range(10)]) >= 8
    assert not Path(RESULTS[0]).exists()
    assert "going on after " in ended(*WORDS)
    assert results() == expected
    assert rest() == {"output_1.h5"}


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_of_either_rank(many, kills):
    """Until so many, or until one ends before its kill."""
    expected = uninterrupted(ranks=2)
    generator = random.Random(6)
    for number in range(kills + 1):
        rank, moment = number % 2, generator.randint(2, 6) if number else 20
        command = [
            sys.executable,
            "-c",
            OF_SEVERAL,
            str(rank),
            str(moment if number < kills else 10**9),
            *WORDS,
        ]
        process = [MPIRUN, "-np", "2", *command]
        done = subprocess.run(process, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 1:
            break
        assert done.returncode
        assert not Path(RESULTS[0]).exists()
    assert number >= min(kills, 4)
    assert "going on after " in done.stdout
    assert results() == expected
    assert rest() == {"output_1.h5"}


def test_it_goes_on_with_any_number_of_ranks_and_says_other_things_of_the_photos(many):
    more = ("--threshold", "0.9", "--top-k", "2", "--columns", "size,path")
    expected = uninterrupted(*more)
    stopped()
    assert "going on after " in ended(*WORDS, *more, ranks=3)
    assert results() == expected


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_order_is_that_of_the_list_on_any_number_of_ranks(many, ranks):
    expected = uninterrupted()
    ended(*WORDS, ranks=ranks)
    assert results() == expected


def test_nothing_that_was_computed_is_computed_again(many):
    stopped()
    result = json.loads(birdsonnx(*WORDS, "--json").stdout)
    assert result["photos"] == PHOTOS - len(REFUSED)
    assert 0 < result["from_killed"] < result["photos"]


# --- What is noticed --------------------------------------------------------------------------------------


def another_model() -> None:
    tiny_model(3, CLASSES, seed=1).save(Path("model.onnx"))


def a_changed_photo() -> None:
    photo(4, np.random.default_rng(99), 40).save("many/night/100.png")


def a_photo_less() -> None:
    Path("many/night/100.png").unlink()


def a_photo_more() -> None:
    shutil.copy("many/night/098.png", "many/night/101.png")


def test_what_has_changed_is_said_and_the_run_begins_anew(many):
    stopped()
    PROGRESS.rename("kept")
    model, photos = "the model is another", "the list of photos is another"
    changes = {another_model: model, a_photo_less: photos, a_photo_more: photos}
    why = "it is computed in another way"
    assert begun_anew("--batch-size", "7") == f"{why}; beginning anew"
    for change, why in changes.items():
        change()
        assert why in begun_anew()
        found = results()
        assert rest() == {"output_1.h5"}
        assert uninterrupted() == found


def test_photos_that_have_changed_are_computed_anew_and_no_others(many):
    stopped()
    changed = Path("many/day/001.png")
    kept = changed.stat()
    photo(2, np.random.default_rng(99), 40).save(changed)
    os.utime(changed, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    said = ended(*WORDS)
    assert "going on after " in said
    assert "; computed anew: records of changed photos 1\n" in said
    found = results()
    assert uninterrupted() == found


def begun_anew(*words: str) -> str:
    """Why a run does not go on with what is in `kept`."""
    shutil.copytree("kept", PROGRESS)
    [line] = [line for line in ended(*WORDS, *words).splitlines() if "anew" in line]
    begin = f"{PROGRESS}: of a run that did not end, but "
    assert line.startswith(begin)
    return line.removeprefix(begin)


def test_a_signal_says_how_to_go_on(many):
    wait = SLOWLY + "killed_after(10**9)\nsys.argv = ['birdsonnx', *sys.argv[1:]]\nmain()\n"
    command = [sys.executable, "-c", wait, *WORDS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not list(PROGRESS.glob("*.units")):
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("birdsonnx: interrupted; the same command goes on after ")
    assert said.endswith(f" of {PHOTOS} photos\n")
    assert rest() == {PROGRESS.name}
    assert "going on after " in ended(*WORDS)


# --- Other targets ----------------------------------------------------------------------------------------


def test_few_photos_leave_no_trace(many):
    for path in [*Path("many/day").iterdir()]:
        path.unlink()
    assert killed([20]) == 1
    assert not PROGRESS.exists()


def test_boxes_of_a_detector(many):
    boxes = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.25, 0.25, 0.5]]
    names = sorted(path.relative_to("many").as_posix() for path in Path("many").rglob("*.png"))
    found = detected(**{name: boxes[: 1 + number % 2] for number, name in enumerate(names)})
    Path("found.json").write_text(json.dumps(found))
    options = ("--detections", "found.json")
    expected = uninterrupted(*options)
    assert killed([50, 40], *options) == 2
    assert " boxes (predictions/output_1.h5.progress)" in ended(*WORDS, *options)
    assert results() == expected


def test_progress_of_a_csv_alone_is_beside_it(many):
    config: dict[str, Any] = {
        "checkpoints": {"load": "model.onnx"},
        "data": {"input_type": "images", "target_type": "labels", "test_input_path": "many"},
    }
    Path("config.json").write_text(json.dumps({"neural_network": {"outfile": "out.txt", **config}}))
    words = ("predict", "--config", "config.json", "--csv", "only.csv")
    assert birdsonnx(*words).returncode == 1
    expected = Path("only.csv").read_bytes()
    Path("only.csv").unlink()
    command = [sys.executable, "-c", ALONE, "40", *words]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert list(Path("only.csv.progress").iterdir())
    assert "going on after " in ended(*words)
    assert Path("only.csv").read_bytes() == expected
    assert not list(Path().glob("*.progress")) + list(Path().glob(".*.lock"))


def test_not_one_photo_that_can_be_used(many):
    for path in Path("many").rglob("*.png"):
        path.write_text("no picture")
    done = birdsonnx(*WORDS)
    assert done.returncode == 2
    assert not PROGRESS.exists()


@pytest.mark.parametrize("what", ["file", "link", "pipe"])
def test_what_stands_in_the_way_is_left_alone(many, what):
    Path("predictions").mkdir()
    if what == "file":
        PROGRESS.write_text("mine")
    elif what == "link":
        Path("elsewhere").mkdir()
        PROGRESS.symlink_to(Path("elsewhere").resolve())
    else:
        os.mkfifo(PROGRESS)
    assert f"{PROGRESS}: no folder; so a run that is stopped begins anew" in ended(*WORDS)
    assert PROGRESS.is_symlink() == (what == "link")
    assert rest() == {"output_1.h5", PROGRESS.name}
