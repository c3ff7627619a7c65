"""What all pictures have in common: a blank figure, and the way to a file."""

import importlib.util
import io
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from birdsonnx import artifacts
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.errors import DataError, InstallationError
from birdsonnx.extras import how_to_install
from birdsonnx.reporting.printable import printable
from birdsonnx.runtime import library_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = 8
"""Of a title, per inch."""

SUFFIXES = ("", ".png", ".svg", ".pdf")
"""Kinds of pictures that `require_drawable` accepts; without a suffix it is a PNG."""


COMMAND = "birdsonnx.command"
"""Key of a PNG's text that holds the record of its command."""


def require_drawable(path: Path) -> None:
    """For callers that measure for a while before they draw; matplotlib itself is not loaded yet.

    Raises:
        DataError: another suffix than those that every matplotlib can write.
        InstallationError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise _without_matplotlib()
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a plot is a {', '.join(SUFFIXES[1:])}")


def _without_matplotlib() -> InstallationError:
    return InstallationError(f"plots need matplotlib; {how_to_install('plot')}")


def blank(title: str, width: float, height: float) -> "Figure":
    """An empty figure of so many inches, which makes room for all that is put on it.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    library_folders.set_for_matplotlib()
    try:
        import matplotlib
    except ImportError:
        raise _without_matplotlib() from None
    from matplotlib.figure import Figure

    matplotlib.rcParams["text.parse_math"] = False  # a class name may hold a dollar sign
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(textwrap.fill(printable(title), int(LETTERS * width), break_on_hyphens=False))
    return figure


def command_of(path: Path) -> str | None:
    """The record of the command that made a PNG; None where there is none to be read."""
    try:
        with open(path, "rb", opener=opener) as file, Image.open(file, formats=["PNG"]) as picture:
            found = picture.info.get(COMMAND)
    except (OSError, ValueError, SyntaxError):
        return None
    return found if isinstance(found, str) else None


def save(figure: "Figure", path: Path, dpi: int = 150, record: str | None = None) -> None:
    """Write a picture; its suffix says of which kind. A PNG keeps the `record` of its command.

    Raises:
        ArtifactError: it cannot be written.
        DataError: matplotlib knows no such kind.
    """
    kind = path.suffix.lstrip(".").lower() or "png"
    texts = {} if record is None or kind != "png" else {COMMAND: record}
    picture = io.BytesIO()  # Pillow does not notice that a disk took only a part of a JPEG
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a character that the font lacks becomes a box
            figure.savefig(picture, dpi=dpi, format=kind, metadata=texts or None)
    except ValueError as error:  # an unknown suffix
        raise DataError(f"{path}: {error}") from None
    artifacts.write_bytes(path, picture.getvalue())
