"""Which species was taken for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from birdsonnx.inference.evaluating.confusion import MOST_IN_MATRIX, Confusion
from birdsonnx.reporting.plots import drawing
from birdsonnx.reporting.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

MOST_DRAWN = 100
"""Classes of a confusion matrix that is too large to draw whole."""
MOST_COUNTED = 40
"""Classes up to which each cell says how many photos it is."""
MANY = 60
"""Beyond so many classes the names stand on all four sides, in small print with more pixels."""
SIDE = 30.0
"""Inches of the largest picture."""


def plot_confusion(confusion: Confusion, classes: Sequence[str], path: Path, title: str) -> None:
    """Write `confusion_figure`. Raises InstallationError where matplotlib is not installed."""
    figure = confusion_figure(confusion, classes, title)
    drawing.save(figure, path, dpi=200 if len(classes) > MANY else 150)


def confusion_figure(confusion: Confusion, classes: Sequence[str], title: str) -> "Figure":
    """The confusion matrix, rows normalised to shares of the true class, counts written where they fit. Of
    more than `MOST_IN_MATRIX` classes those that are in the most mistakes are drawn.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    photos = np.maximum(confusion.shown, 1)
    if len(classes) > MOST_IN_MATRIX:
        drawn = confusion.most_confused(MOST_DRAWN)
        title = f"{title}: the {len(drawn)} of {len(classes)} classes with the most mistakes"
        confusion, photos = confusion.among(drawn), photos[drawn]
        classes = [classes[index] for index in drawn]
    classes = [printable(name) for name in classes]
    count = len(classes)
    side = min(SIDE, 3.5 + 0.35 * count)
    figure = drawing.blank(title, side + 1, side)
    axis = figure.subplots()
    shares = confusion.matrix() / photos[:, np.newaxis]
    # Not as an image: matplotlib would scale it up to the picture's pixels, which takes 0.8 GB.
    edges = np.arange(count + 1) - 0.5
    # Of the root of a share: one mistake in twenty photos can be seen.
    cells = axis.pcolormesh(edges, edges, shares, cmap="Blues", norm=_root())
    axis.set(aspect="equal", ylim=(count - 0.5, -0.5))
    if count <= MOST_COUNTED:
        for row, column, cell in zip(confusion.label, confusion.named, confusion.count, strict=True):
            color = "white" if shares[row, column] > 0.4 else "black"
            axis.text(column, row, str(cell), ha="center", va="center", color=color, fontsize=7)
    size = 8.0 if count <= MANY else max(2.0, min(7.0, 72 * 0.8 * 0.75 * side / count))
    axis.set_xticks(range(count), classes, rotation=90, fontsize=size)
    axis.set_yticks(range(count), classes, fontsize=size)
    if count > MANY:
        _make_findable(axis, count)
    large = "medium" if count <= MANY else "xx-large"
    axis.set_xlabel("predicted species", fontsize=large)
    axis.set_ylabel("true species", fontsize=large)
    if count > MANY:
        _lay_out(figure, axis, size / 72 * max(map(len, classes)))
    bar = figure.colorbar(
        cells, ax=axis, fraction=0.03, shrink=0.5, aspect=30, label="share of the true species' photos"
    )
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1])
    return figure


def _make_findable(axis: "Axes", count: int) -> None:
    """Names on all four sides, and a line after every tenth class, which lead the eye from a cell to its two
    names."""
    axis.tick_params(top=True, right=True, labeltop=True, labelright=True, length=2, pad=1)
    axis.tick_params(axis="x", labelrotation=90)
    edges = np.arange(0, count, 10) - 0.5
    axis.vlines(edges, -0.5, count - 0.5, color="black", alpha=0.25, linewidth=0.4)
    axis.hlines(edges, -0.5, count - 0.5, color="black", alpha=0.25, linewidth=0.4)


def _lay_out(figure: "Figure", axis: "Axes", letters: float) -> None:
    """Room for the longest name, so many letters' heights long, on all sides. matplotlib's own layout would
    measure every name, again and again."""
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    room = 0.7 * letters + 0.5
    axis.set_position((room / width, room / height, 1 - 2 * room / width, 1 - 2 * room / height))


def _root() -> "Normalize":
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=1)
