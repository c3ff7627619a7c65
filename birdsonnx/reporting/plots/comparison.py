"""Architectures by how fast and how accurate they are."""

from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.reporting.plots import drawing
from birdsonnx.training.comparing import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_comparison(comparison: Comparison, path: Path, title: str) -> None:
    """Write `comparison_figure`. Raises InstallationError where matplotlib is not installed."""
    drawing.save(comparison_figure(comparison, title), path)


def comparison_figure(comparison: Comparison, title: str) -> "Figure":
    """Accuracy, with its 95 % interval, over images per second; a line joins those on the front.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    figure = drawing.blank(title, 7.5, 5)
    axis = figure.subplots()
    fastest = max(row.images_per_second for row in comparison.rows)
    for row in comparison.rows:
        low, high = row.accuracy_interval
        color = "tab:blue" if row.on_front else "tab:gray"
        axis.vlines(row.images_per_second, low, high, color=color, alpha=0.5)
        axis.plot(row.images_per_second, row.accuracy, "o", color=color)
        axis.annotate(
            row.arch,
            (row.images_per_second, row.accuracy),
            textcoords="offset points",
            xytext=(6, 4) if row.images_per_second < 0.75 * fastest else (-6, 4),  # inside the axes
            ha="left" if row.images_per_second < 0.75 * fastest else "right",
            fontsize="small",
        )
    front = sorted((row.images_per_second, row.accuracy) for row in comparison.rows if row.on_front)
    axis.plot(*zip(*front, strict=True), color="tab:blue", linewidth=1, label="front", zorder=1)
    axis.set(xlabel="images/s", ylabel="accuracy, with its 95 % interval")
    axis.margins(0.15, 0.1)
    axis.set_xlim(0, None)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    return figure
