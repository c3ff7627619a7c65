"""What `birdsonnx doctor` looks for."""

import sys
import tomllib
from pathlib import Path

import pytest

from birdsonnx import doctor
from birdsonnx.onednn import library

NOT_FOR_USERS = {"all", "docs", "dev", "bench"}


def test_every_extra_is_looked_for():
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
    assert set(doctor.EXTRAS) == set(project["project"]["optional-dependencies"]) - NOT_FOR_USERS


@pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is used on Linux only")
def test_a_library_that_is_named_and_is_none_is_a_problem(monkeypatch):
    library.load.cache_clear()
    monkeypatch.setenv(library.VARIABLE, "/no/libdnnl.so")
    [problem] = [each for each in doctor.examine()["problems"] if library.VARIABLE in each]
    assert problem.startswith("BIRDSONNX_ONEDNN: /no/libdnnl.so cannot be loaded (")
