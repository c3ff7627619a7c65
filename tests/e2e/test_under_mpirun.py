"""Verbs under mpirun: who works, who prints, and that nobody waits for a rank that is gone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import MPIRUN, birdsonnx, refused, succeed, succeed_json

FOREIGN = {"OMPI_COMM_WORLD_SIZE": "2"}


def foreign(rank: int, *words: Any) -> "subprocess.CompletedProcess[str]":
    """One of two processes that another MPI's mpirun has started."""
    return birdsonnx(*words, environment={**FOREIGN, "OMPI_COMM_WORLD_RANK": str(rank)})


# --- One rank that fails --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said", "debug"),
    [
        ("RuntimeError('broken')", "internal error: RuntimeError: broken", False),
        ("RuntimeError('broken')", "internal error: RuntimeError: broken", True),
        ("errors.DataError('broken')", "birdsonnx: rank 1: broken", True),
        ("OSError(5, 'broken disk', 'here.bin')", "birdsonnx: rank 1: here.bin: broken disk", False),
    ],
)
def test_one_rank_that_fails_ends_the_others(workspace, error, said, debug):
    words = ["predict", "data/valid", "--model", "model.onnx", "--json", *["--debug"] * debug]
    Path("fail.py").write_text(
        "import sys\n"
        "from birdsonnx import errors\n"
        "from birdsonnx.inference import prediction\n"
        "record = prediction.record\n"
        "def fail(classifier, photos, ranks, *others):\n"
        "    if ranks.rank == 1:\n"
        f"        raise {error}\n"
        "    return record(classifier, photos, ranks, *others)\n"
        "prediction.record = fail\n"
        "from birdsonnx.cli.app import main\n"
        f"sys.argv = ['birdsonnx', *{words}]\n"
        "main()\n"
    )
    command = [str(MPIRUN), "-np", "2", sys.executable, "fail.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert ("Traceback" in done.stderr) == debug
    assert debug or len(done.stderr.splitlines()) == 1  # MPI's own word about the end is not heard
    assert "broken" in json.loads(done.stdout)["error"]
    assert not Path("predictions/output_1.h5").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_traceback_of_an_error_that_all_ranks_have_is_shown_once(workspace, ranks):
    done = birdsonnx("predict", "nothing", "--debug", "--json", ranks=ranks)
    assert done.returncode == 2
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1] == "birdsonnx: nothing: no such file or folder"
    assert json.loads(done.stdout) == {"error": "nothing: no such file or folder"}


@pytest.mark.parametrize("method", ["first", "together"])
def test_the_traceback_shows_where_a_rank_raised_it(workspace, method):
    """Also where another rank reports it."""
    Path("fail.py").write_text(
        "import sys\n"
        "from birdsonnx import errors\n"
        "from birdsonnx.inference import prediction\n"
        "def fail(classifier, photos, ranks, *others):\n"
        "    def very_deep():\n"
        f"        if ranks.rank == {1 if method == 'together' else 0}:\n"
        "            try:\n"
        "                1 / 0\n"
        "            except ZeroDivisionError as error:\n"
        "                raise errors.DataError('broken') from error\n"
        f"    ranks.{method}(very_deep)\n"
        "prediction.record = fail\n"
        "from birdsonnx.cli.app import main\n"
        "sys.argv = ['birdsonnx', 'predict', 'data/valid', '--model', 'model.onnx', '--debug']\n"
        "main()\n"
    )
    command = [str(MPIRUN), "-np", "2", sys.executable, "fail.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert done.stderr.count(", in very_deep") == 2
    assert done.stderr.splitlines()[-1] == "birdsonnx: broken"


# --- Launchers of another MPI ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("predict", "data/valid", "--model", "model.onnx"), ("info", "model.onnx"), ("demo", "new")]
)
def test_under_a_foreign_mpirun_one_process_speaks(workspace, words):
    first, second = foreign(0, *words, "--json"), foreign(1, *words, "--json")
    assert first.returncode == second.returncode == 2
    assert "2 processes" in json.loads(first.stdout)["error"]
    assert len(first.stderr.splitlines()) == 1
    assert second.stdout == second.stderr == ""


def test_doctor_says_what_is_wrong_with_a_foreign_mpirun():
    first, second = foreign(0, "doctor", "--json"), foreign(1, "doctor", "--json")
    assert first.returncode == second.returncode == 1
    assert "foreign mpirun" in " ".join(json.loads(first.stdout)["problems"])
    assert second.stdout == second.stderr == ""


# --- Verbs that one process carries out -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (("sample", "data/train", "samples"), "samples"),
        (("quantize", "model.onnx", "--calibrate", "data/train"), "model.int8.onnx"),
        (("schema", "-o", "schema.json"), "schema.json"),
        (("schema",), None),
        (("info", "model.onnx"), None),
        (("doctor",), None),
        (("export", "--arch", "list"), None),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, tuple) else "",
)
def test_rank_0_works_for_all(workspace, words, written):
    alone = succeed(*words)
    if written is not None:
        Path(written).rename("alone")
    assert succeed(*words, ranks=2) == alone
    if written is not None:
        Path(written).rename("together")
        listed = [sorted(path.rglob("*")) for path in (Path("alone"), Path("together"))]
        assert [each.name for each in listed[0]] == [each.name for each in listed[1]]
    succeed_json(*words, ranks=2)


def test_plot_and_export_under_mpirun(workspace, training_config):
    pytest.importorskip("matplotlib")
    Path("config.json").write_text(json.dumps(training_config(num_epochs=1)))
    succeed("train", "config.json")
    assert succeed("plot", "out.txt", ranks=2) == "wrote out.png\n"
    assert len(succeed("plot", "--augmented", "config.json", ranks=2).splitlines()) == 3


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "nothing", "samples"),
        ("quantize", "nothing.onnx", "--calibrate", "data/train"),
        ("export", "nothing.h5"),
        ("export", "--to", "torch"),
        ("plot", "nothing.txt"),
        ("info", "nothing.onnx"),
    ],
)
def test_what_rank_0_refuses_is_one_line_and_the_exit_code_of_all(workspace, words):
    done = birdsonnx(*words, "--json", ranks=3)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [refused(*words)]
    assert list(json.loads(done.stdout)) == ["error"]


@pytest.mark.parametrize("words", [("demo", "new"), ("benchmark", "model.onnx")])
def test_what_starts_processes_of_its_own_is_refused(workspace, words):
    assert "3 ranks are running; start it without mpirun" in refused(*words, ranks=3)
    assert not Path("new").exists()
