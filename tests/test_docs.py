"""The documentation: every command of the tutorial runs, generated pages are what the program says, what
pages name exists.

Of docs/tutorial.md all blocks of `console` (lines that begin with `$ `) and `bash` run in order, in one
folder that holds `photos/` with a folder for each of three species, and `small.onnx`, a network for them. A
comment on the line before a block changes that:

    <!-- not run -->
    <!-- run instead: COMMAND -->   for what would take a download or long
    <!-- file: NAME -->             the block is what that file holds
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import VERBS, succeed, succeed_json
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

BLOCK = re.compile(
    r"(?:<!-- (?P<mark>not run|run instead: (?P<instead>[^\n]*?)|file: (?P<file>[^\n]*?)) -->\n)?"
    r"```(?P<kind>\w*)\n(?P<text>.*?)```",
    re.DOTALL,
)


def commands_of(page: str) -> Iterator[str]:
    """Each command to run, in order; what the page calls a file is written on the way."""
    for block in BLOCK.finditer(page):
        if block["file"]:
            Path(block["file"]).write_text(block["text"])
        if block["kind"] not in ("console", "bash") or block["mark"] == "not run":
            continue
        if block["instead"]:
            yield block["instead"]
            continue
        lines = block["text"].replace("\\\n", " ").splitlines()
        if block["kind"] == "bash":
            yield from (line for line in lines if line)
        else:
            yield from (line.removeprefix("$ ") for line in lines if line.startswith("$ "))


def test_blocks_are_found_and_their_marks_heeded():
    page = (
        "<!-- file: a.json -->\n```json\n[1]\n```\n"
        "```console\n$ one \\\n  two\nsaid\n$ three\n```\n<!-- not run -->\n```console\n$ never\n```\n"
        "<!-- run instead: four --fast -->\n```console\n$ four\n```\n```bash\nfive\nsix\n```\n"
        "```json\n{}\n```\n"
    )
    assert list(commands_of(page)) == ["one    two", "three", "four --fast", "five", "six"]
    assert Path("a.json").read_text() == "[1]\n"


def make_photos() -> None:
    """Three species that differ in colour, 10 photos each."""
    generator = np.random.default_rng(0)
    for name, color in (("COOT", (40, 40, 60)), ("HERON", (170, 180, 190)), ("WREN", (150, 90, 40))):
        folder = Path("photos") / name
        folder.mkdir(parents=True)
        for number in range(10):
            noise = generator.integers(-30, 31, (64, 64, 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03}.jpg")


def test_every_command_of_the_tutorial_runs():
    """In the forks of tests.command, which have done the imports."""
    make_photos()
    tiny_model(3).save(Path("small.onnx"))
    ran = []
    for command in commands_of((DOCS / "tutorial.md").read_text()):
        program, *words = shlex.split(command)
        assert program == "birdsonnx", command
        succeed(*words)
        ran.append(words[0])
    assert set(ran) >= {"split", "train", "evaluate", "report", "predict", "quantize", "init", "plot"}
    assert Path("runs/train_1/report.html").is_file()
    assert Path("sorted").is_dir()


def test_the_programs_of_the_formats_page_agree_with_predict(capsys):
    make_photos()
    tiny_model(3, ("COOT", "HERON", "WREN")).save(Path("birds.onnx"))
    shutil.copy("photos/COOT/000.jpg", "bird.jpg")
    another_program, reader, reader_of_tables = re.findall(
        r"```python\n(.*?)```", (DOCS / "formats.md").read_text(), flags=re.DOTALL
    )
    said = succeed_json("predict", "photos", "--model", "birds.onnx")["predictions"]
    exec(reader, {})
    assert capsys.readouterr().out.splitlines() == [f"{one['name']} {one['top'][0][0]}" for one in said]
    shutil.rmtree("predictions")
    succeed_json("predict", "photos", "--model", "birds.onnx", "--layout", "table")
    exec(reader_of_tables, {})
    assert capsys.readouterr().out.splitlines() == [f"{one['name']} {one['top'][0][0]}" for one in said]
    exec(another_program, {})
    name, probability = capsys.readouterr().out.rsplit(maxsplit=1)
    [coot] = [one for one in said if one["name"] == "COOT/000.jpg"]
    assert name == coot["top"][0][0]
    assert float(probability) == pytest.approx(coot["top"][0][1], abs=0.02)  # 64 pixels to 32: JPEG at half


def test_the_reference_is_what_the_program_says():
    """With the pinned typer: others may word a help in another way."""
    if f"\ntyper=={version('typer')}\n" not in (ROOT / "constraints.txt").read_text():
        pytest.skip("another typer than the pinned one")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/reference.py"), "--check"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.name != "architecture.md"]


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    return {verb: succeed(verb, "--help") for verb in VERBS}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_option_in_a_page_exists(page, helps):
    for verb, rest in re.findall(r"birdsonnx ([a-z]+)([^\n`]*)", page.read_text()):
        if verb in helps:
            missing = [option for option in re.findall(r"--[a-z][\w-]+", rest) if option not in helps[verb]]
            assert not missing, (verb, missing)


def test_troubleshooting_quotes_what_the_program_says():
    """Each title in backticks, but for what stands for a name or a number (N, …)."""
    source = "\n".join(path.read_text() for path in (ROOT / "birdsonnx").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?r?"', "", source)
    titles = re.findall(r"^`([^`\n]+)`", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    assert len(titles) >= 5
    system = ("No space left on device",)
    for title in titles:
        for piece in re.split(r"…|\bN\b|\([^)]*\)", title):
            piece = piece.strip()
            assert len(piece) < 4 or piece in source or piece in system, piece


def test_every_page_is_in_the_menu_and_on_the_first_page():
    """mkdocs, which checks the links inside docs/, would only warn of a page that no menu names."""
    menu, first = (ROOT / "mkdocs.yml").read_text(), (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert f": {page.name}\n" in menu, page
        assert page.name in ("index.md", "changes.md") or f"]({page.name}" in first, page


def test_paths_that_pages_name_exist():
    """In backticks, of the repository's own folders."""
    for page in DOCS.glob("*.md"):
        for name in re.findall(r"`((?:deploy|examples|models|scripts)/[\w./-]*\w)`", page.read_text()):
            made = name.startswith("models/") and name.endswith(".onnx")
            assert made or (ROOT / name).exists(), (page.name, name)


def test_nothing_is_fetched_from_elsewhere():
    text = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in text
    assert "http" not in text.replace("prefers-color-scheme", "")
