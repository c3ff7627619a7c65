"""The wheel and the sdist hold what they need: `python -m build` builds them, here without the network.
`make test-wheel` walks the whole road with the wheel, in an environment that holds nothing else."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from birdsonnx import __version__
from birdsonnx.config import reading
from tests.command import refused, succeed, succeed_json

ROOT = Path(__file__).resolve().parents[1]

ONLY_OF_THE_REPOSITORY = (".ci/", ".github/")

pytest.importorskip("build", reason="what builds the package is not installed")
pytest.importorskip("hatchling", reason="what builds the package is not installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with both."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    [path] = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture
def unpacked(built, tmp_path) -> Path:
    """The sdist's folder."""
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / f"birdsonnx-{__version__}"


def tracked() -> set[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a clone")
    found = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(filter(None, found.stdout.split("\0")))


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_is_the_clone(unpacked):
    expected = {name for name in tracked() if not name.startswith(ONLY_OF_THE_REPOSITORY)}
    assert files_below(unpacked) - {"PKG-INFO"} >= expected


def test_the_wheel_holds_the_package_and_the_examples(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    clone = {name for name in tracked() if name.startswith("birdsonnx/")}
    examples = {f"birdsonnx/{name}" for name in tracked() if name.startswith("models/")}
    assert len(examples) >= 5
    assert names >= clone | examples
    assert {name.split("/")[0] for name in names} == {"birdsonnx"}


def test_the_wheel_says_what_it_is(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = message_from_string(wheel.read(name).decode())
    assert said["Version"] == __version__
    assert said["License-Expression"] == "Apache-2.0"
    assert "ONNX" in said["Keywords"]
    assert "Typing :: Typed" in said.get_all("Classifier")
    [entry] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "birdsonnx = birdsonnx.__main__:main" in wheel.read(entry).decode()


def test_every_file_that_names_a_version_names_this_one():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__} - " in (ROOT / "CHANGELOG.md").read_text()


def test_twine_takes_both(built):
    pytest.importorskip("twine")
    files = [str(path) for path in built.iterdir()]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_tests_run_from_the_sdist(unpacked):
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/config/test_schema.py"]
    done = subprocess.run(
        command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_the_installed_program_hands_out_the_examples(wheel, tmp_path):
    """From the wheel's own files: in a clone they lie elsewhere."""
    wheel.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "birdsonnx", "configs", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    written = {Path(name).name for name in json.loads(done.stdout)["files"]}
    assert written == {path.name for path in (ROOT / "models").glob("*.json")}
    for name in written:
        assert (tmp_path / "models" / name).read_bytes() == (ROOT / "models" / name).read_bytes()


def test_examples_are_whole_and_replace_nothing():
    written = [Path(name) for name in succeed_json("configs", "here")["files"]]
    configs = [path for path in written if path.name.startswith("config_")]
    assert len(configs) >= 4
    for path in configs:
        reading.read(path)
    assert "wrote here/config_train.json" in succeed("configs", "here")  # the same ones again
    written[0].write_text("mine")
    assert "another file is there" in refused("configs", "here")
    assert written[0].read_text() == "mine"
