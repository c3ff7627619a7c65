"""Names that move the cursor, forge a line of ours, or become a formula in a spreadsheet."""

import csv
import re
from pathlib import Path

import pytest
from PIL import Image

from birdsonnx.errors import DataError
from birdsonnx.reporting.console import Console
from birdsonnx.runtime import interpreter
from tests.command import birdsonnx
from tests.tiny import make_class_folders, tiny_model

EVIL = "\x1b]0;owned\x07\x1b[2J\nbirdsonnx: all is well\r\u202e\x9b31m"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
"""What must not come out; a line's end may."""


@pytest.fixture
def model() -> Path:
    tiny_model(3, ["A", f"B{EVIL}", "C"]).save(Path("m.onnx"))
    make_class_folders(Path("data"), ["A", f"B{EVIL}", "C"], per_class=1)
    return Path("m.onnx")


def safe(done) -> None:
    for text in (done.out, done.err):
        assert not RAW.search(text), text
        assert "birdsonnx: all is well" not in text.splitlines()


def test_class_names_and_folders(run, model):
    for words in (
        ("info", model),
        ("predict", "data", "--model", model),
        ("evaluate", "data", "--model", model),
        ("sample", "data", "samples"),
        ("info", model, "--json"),
        ("predict", "data", "--model", model, "--json"),
    ):
        done = run(*words)
        assert done.code == 0, done
        safe(done)


def test_file_names(run, model):
    folder = Path(f"photos{EVIL}".replace("/", ""))
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}{EVIL}.png").write_text("no picture")
    done = run("predict", folder, "--model", model)
    assert done.code == 2
    safe(done)
    assert len(done.err.splitlines()) == 3, "the message, and a line for each photo"
    Image.new("RGB", (40, 40)).save(folder / f"good{EVIL}.png")
    done = run("predict", folder, "--model", model)
    assert done.code == 1
    safe(done)


@pytest.mark.parametrize(
    "words",
    [
        ("info", f"none{EVIL}.onnx"),
        ("predict", f"--none{EVIL}"),
        ("predict", f"-{EVIL}"),
        ("info", "a", f"b{EVIL}"),
        (f"verb{EVIL}",),
        ("predict", "x", "--top-k", f"many{EVIL}"),
        ("train", f"c{EVIL}.json"),
        ("train", "config.json", "--set", f"data{EVIL}=1"),
        ("train", "evil.json"),
        ("train", "evil.json", "--debug"),
        ("plot", f"out{EVIL}.txt"),
        ("evaluate", f"p{EVIL}.h5"),
        ("export", f"k{EVIL}.h5"),
        ("predict", "x", "--precision", f"fp{EVIL}"),
    ],
)
def test_words_and_keys(run, words):
    escaped = EVIL.encode("unicode_escape").decode().replace("\\x", "\\u00")
    Path("config.json").write_text('{"neural_network": {}}')
    Path("evil.json").write_text(f'{{"neural_network": {{"key{escaped}": 1}}}}')
    done = run(*words)
    assert done.code == 2
    safe(done)


def test_no_words_at_all(run):
    done = run()
    assert done.code == 2
    assert "Commands:" in done.err
    assert run("--version").code == 0


def test_only_what_an_error_lists_are_lines():
    error = DataError("two photos:", [f"a{EVIL}", "b"])
    assert len(error.lines) == 3
    assert str(DataError("one")) == "one"


def test_titles_of_bars(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Console().progress(f"[red]photos{EVIL}", 1) as advance:
        advance(1)
    assert "owned\x07" not in capsys.readouterr().err


# --- CSV ------------------------------------------------------------------------------------------------

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "'quoted", "plain"]


def cells(path: str) -> list[str]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [row[0] for row in csv.reader(file)][1:]


def test_names_in_a_csv_are_no_formulas(run):
    tiny_model(3, ["=A", "-B", "C"]).save(Path("m.onnx"))
    Path("photos").mkdir()
    for name in FORMULAS:
        Image.new("RGB", (40, 40)).save(Path("photos") / f"{name.replace('/', '_')}.png")
    names = {f"{name.replace('/', '_')}.png" for name in FORMULAS}
    assert run("predict", "photos", "--model", "m.onnx", "--csv", "safe.csv").code == 0
    assert not [cell for cell in cells("safe.csv") if cell[0] in "=+-@\t\r"]
    assert {cell[1:] if cell[1:] in names else cell for cell in cells("safe.csv")} == names
    assert run("predict", "photos", "--model", "m.onnx", "--csv", "raw.csv", "--csv-raw").code == 0
    assert set(cells("raw.csv")) == names
    assert "--csv-raw is for the file of --csv" in run("predict", "photos", "--csv-raw").refusal


def test_class_names_in_the_csv_of_an_evaluation(run):
    names = ["+B", "=A", "C"]
    tiny_model(3, names).save(Path("m.onnx"))
    make_class_folders(Path("data"), names, per_class=1)
    assert run("evaluate", "data", "--model", "m.onnx", "--csv", "safe.csv").code == 0
    assert cells("safe.csv") == ["'+B", "'=A", "C"]
    assert run("evaluate", "data", "--model", "m.onnx", "--csv", "raw.csv", "--csv-raw").code == 0
    assert cells("raw.csv") == names


# --- Modules in the working folder ------------------------------------------------------------------------

MARK = "from pathlib import Path\nPath('ran').write_text(__name__)\nraise SystemExit(7)\n"


def test_children_do_not_run_what_lies_in_the_working_folder():
    import subprocess

    for name in ("simplejpeg", "numpy", "runpy", "typer", "json"):
        Path(f"{name}.py").write_text(MARK)
    Path("birdsonnx").mkdir()
    Path("birdsonnx/__init__.py").write_text(MARK)
    done = subprocess.run(interpreter.command(["--version"]), capture_output=True, text=True, check=False)
    assert (done.returncode, Path("ran").exists()) == (0, False), done.stderr


def test_python_m_looks_for_no_photo_code_either():
    tiny_model(3).save(Path("m.onnx"))
    for name in ("simplejpeg", "numpy", "onnx", "h5py"):
        Path(f"{name}.py").write_text(MARK)
    done = birdsonnx("info", "m.onnx")
    assert (done.returncode, Path("ran").exists()) == (0, False), done.stderr


def test_all_children_are_started_in_one_place():
    package = Path(interpreter.__file__).parents[1]
    users = [path.name for path in package.rglob("*.py") if "sys.executable, " in path.read_text()]
    assert users == ["interpreter.py"]
