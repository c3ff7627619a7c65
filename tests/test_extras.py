"""Advice about what is not installed is a command that works without an index that has this package."""

import re
import shlex
import tomllib
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from birdsonnx import extras
from birdsonnx.extras import how_to_install

ROOT = Path(__file__).resolve().parents[1]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def installed(declared: dict[str, list[str]]) -> Message:
    """An installed package's metadata, as its build writes them."""
    found = Message()
    found["Requires-Dist"] = "numpy>=2.0"
    for extra, texts in declared.items():
        found["Provides-Extra"] = extra
        for text in texts:
            requirement, _, marker = text.partition(";")
            condition = f"({marker.strip()}) and " if marker else ""
            found["Requires-Dist"] = f'{requirement}; {condition}extra == "{extra}"'
    return found


@pytest.fixture(autouse=True)
def as_declared(monkeypatch):
    """Whatever this environment was installed from."""
    monkeypatch.setattr(extras, "metadata", lambda _: installed(DECLARED))


@pytest.mark.parametrize("extra", [name for name in DECLARED if name not in ("all", "dev", "bench")])
def test_an_extra_is_installed_by_its_packages(extra):
    words = shlex.split(how_to_install(extra))
    assert words[:2] == ["pip", "install"]
    advised = {Requirement(word).name: Requirement(word).specifier for word in words[2:]}
    assert advised == {Requirement(text).name: Requirement(text).specifier for text in DECLARED[extra]}


def test_extras_of_an_extra_are_their_packages():
    [inner] = [Requirement(text) for text in DECLARED["all"]]
    each = {word for extra in inner.extras for word in shlex.split(how_to_install(extra))}
    assert set(shlex.split(how_to_install("all"))) == each


def test_what_no_python_of_this_kind_has_is_said(monkeypatch):
    monkeypatch.setattr(extras, "metadata", lambda _: installed({"export": ["keras; python_version < '3'"]}))
    assert how_to_install("export") == "the extra 'export' has no packages for this Python or platform"


def test_a_clone_that_is_not_installed_or_newer(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    assert how_to_install("unheard") == "pip install '.[unheard]' in its source folder"
    monkeypatch.setattr(extras, "metadata", missing)
    assert how_to_install("plot") == "pip install '.[plot]' in its source folder"


def test_no_message_advises_what_no_index_has():
    for path in (ROOT / "birdsonnx").rglob("*.py"):
        if path.name != "extras.py":
            assert not re.search(r"pip install[^\n]*birdsonnx\[", path.read_text()), path
