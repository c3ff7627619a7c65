"""The configs and networks that come with birdsonnx, to copy and to change.

They lie in `models/` at the top of a clone, and inside the package where a wheel was installed.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.errors import ConfigError


def all_files() -> list[Traversable]:
    """The files, in name order."""
    installed = files("birdsonnx") / "models"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "models"
    found = (file for file in folder.iterdir() if file.name.endswith(".json"))
    return sorted(found, key=lambda file: file.name)


def copy_to(folder: Path) -> list[Path]:
    """Write every one into a folder; gives the files that are there now. One that is there already stays
    where it is the same.

    Raises:
        ConfigError: another file has the name of one; nothing is written.
        ArtifactError: the folder cannot be written.
    """
    contents = {folder / file.name: file.read_bytes() for file in all_files()}
    for path, content in contents.items():
        if path.exists() and not _holds(path, content):
            raise ConfigError(f"{path}: another file is there; give a folder without it")
    for path, content in contents.items():
        artifacts.write_bytes(path, content)
    return list(contents)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content
