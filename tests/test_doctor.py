"""What `birdsonnx doctor` looks for."""

import tomllib
from pathlib import Path

from birdsonnx import doctor

NOT_FOR_USERS = {"all", "docs", "dev", "bench"}


def test_every_extra_is_looked_for():
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
    assert set(doctor.EXTRAS) == set(project["project"]["optional-dependencies"]) - NOT_FOR_USERS
