"""What random transforms make of photos."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.reporting.augmentation import Preview
from birdsonnx.reporting.plots import drawing
from birdsonnx.reporting.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = 1.75
"""Inches across."""
NARROWEST = 4.5
"""Inches that a line of the note needs."""
LETTERS = 13
"""Of the note, per inch."""


def plot_preview(preview: Preview, path: Path, title: str, record: str | None = None) -> None:
    """Write `preview_figure`, with the `record` of the command.
    Raises InstallationError where matplotlib is not installed."""
    drawing.save(preview_figure(preview, title), path, record=record)


def preview_figure(preview: Preview, title: str) -> "Figure":
    """Photos in rows: as evaluation sees them, then as each epoch does, where that is different.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    epochs = [f"epoch {epoch}" for epoch in preview.epochs]
    headings = ["evaluation", *epochs] if epochs else ["every epoch, and evaluation"]
    rows = preview.rows
    height, width, _ = rows[0].evaluated.shape
    across = max(NARROWEST, PICTURE * len(headings))
    figure = drawing.blank(title, across, 1.5 + (PICTURE * height / width + 0.25) * len(rows))
    axes = figure.subplots(len(rows), len(headings), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for pixels, axis in zip((row.evaluated, *row.trained), line, strict=True):
            axis.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        # The name may run over the next pictures: a blank keeps its line free, not its width.
        line[0].set_title(printable(row.name), loc="left", fontsize=8).set_in_layout(False)
        line[0].set_title(" ", fontsize=8)
    for heading, axis in zip(headings, axes[0], strict=True):
        axis.set_title(f"{heading}\n", fontsize=10)
    figure.supxlabel(textwrap.fill(printable(preview.note), int(LETTERS * across)), fontsize=8)
    return figure
