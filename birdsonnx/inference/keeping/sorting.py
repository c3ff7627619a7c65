"""Photos placed in folders of the classes that they were named: `predict --sort`."""

import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdsonnx.errors import ArtifactError, ConfigError, DataError
from birdsonnx.images.inputs import named_by
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.placing import place, require_place
from birdsonnx.inference.judging.verdicts import Judged
from birdsonnx.runtime.audience import Audience

LONGEST_NAME = 255
"""Bytes that file systems give a name."""

WINDOWS_CHARACTERS = frozenset('<>:"\\|?*') | frozenset(map(chr, range(32)))
WINDOWS_DEVICES = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)))
)
"""What Windows allows in no name, and takes for a device whatever suffix follows."""


@dataclass
class Sorter:
    """Where each photo goes. They are placed all at once when all are named: a run that was stopped leaves
    nothing, and the next one finds its folder free."""

    folder: Path
    copies: bool
    places: dict[str, str] = field(default_factory=dict)
    """Where each lies, by where it goes; texts: a million of them take 0.25 GB."""

    def add(self, judged: Judged, /) -> None:
        """A photo goes into the folder of what is said of it, under its name in the results."""
        self.places[f"{judged.verdict.title}/{judged.photo.name}"] = str(judged.photo.path)

    def refuse(self, _photo: Photo, _reason: str, /) -> None:
        """A photo that could not be used stays where it is."""

    def place(self, output: Path | None, audience: Audience) -> None:
        """Make the folder; the predictions are in `output` already. Raises DataError and ArtifactError, as
        `placing.place` does."""
        try:
            with audience.progress("sorting", len(self.places)) as advance:
                place(self.places, self.folder, self.copies, audience.say, advance)
        except (ArtifactError, DataError) as error:
            kept = "" if output is None else f"; the predictions are in {output}"
            raise type(error)(f"{error}{kept}") from error


def require_free(folder: Path, inputs: Sequence[str], results: Sequence[Path | None]) -> None:
    """See to it that photos can be sorted into a folder.

    Args:
        folder: to be made.
        inputs: photos and folders that they come from.
        results: files that are written as well.

    Raises:
        ConfigError: a result would lie among the photos.
        DataError: the folder is not new or empty, or lies in an input.
    """
    require_place(folder, [place for given in inputs for place in named_by(given)])
    for path in results:
        if path is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise ConfigError(f"{path}: would lie among the photos of --sort {folder}; write it elsewhere")


def require_folder_names(classes: Sequence[str]) -> None:
    """Raises ConfigError where the name of a class, or what may be said instead of one, cannot be a folder's,
    or is another's here."""
    unfit = [(name, why) for name in classes if (why := unfit_for_folder(name, os.name == "nt"))]
    if unfit:
        name, why = unfit[0]
        more = f" ({len(unfit) - 1} more are like it)" if len(unfit) > 1 else ""
        raise ConfigError(f"--sort: {name!r} cannot be a folder: {why}{more}; use --csv instead")
    if os.name == "nt" or sys.platform == "darwin":
        _require_apart(classes)


def unfit_for_folder(name: str, windows: bool) -> str:
    """Why a class's name cannot be that of a folder, here or on Windows; empty where it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not name:
        return "it is empty"
    if "/" in name or "\0" in name:
        return "it holds '/' or NUL"
    if name.startswith("."):
        return "folders whose names begin with '.' are hidden"
    if size > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    if windows and WINDOWS_CHARACTERS & set(name):
        return 'Windows allows none of < > : " \\ | ? * in a name'
    if windows and (name.endswith((".", " ")) or name.partition(".")[0].strip().upper() in WINDOWS_DEVICES):
        return "Windows keeps such names for devices, or cuts off their end"
    return ""


def _require_apart(classes: Sequence[str]) -> None:
    """Raises ConfigError where two classes are one folder on disks that do not tell A from a."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ConfigError(f"--sort: {other!a} and {name!a} would be one folder here; use --csv instead")
