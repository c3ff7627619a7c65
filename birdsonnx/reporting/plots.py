"""Curves and matrices as PNG."""

import importlib.util
import io
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from birdsonnx import artifacts
from birdsonnx.errors import DataError, InstallationError
from birdsonnx.extras import how_to_install
from birdsonnx.inference.benchmark import Benchmark
from birdsonnx.inference.confusion import MOST_IN_MATRIX, Confusion
from birdsonnx.reporting.augmentation import Preview
from birdsonnx.reporting.printable import printable
from birdsonnx.reporting.training_log import Curves
from birdsonnx.runtime import library_folders

MOST_DRAWN = 100
"""Classes of a confusion matrix that is too large to draw whole."""

SUFFIXES = ("", ".png", ".svg", ".pdf")
"""Kinds of pictures that `require_drawable` accepts; without a suffix it is a PNG."""


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


def _pyplot() -> Any:
    library_folders.set_for_matplotlib()
    try:
        import matplotlib
    except ImportError:
        raise _without_matplotlib() from None
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # a class name may hold a dollar sign
    from matplotlib import pyplot

    return pyplot


def plot_curves(curves: Curves, path: Path, title: str) -> None:
    """Loss over training (each batch, and each evaluation) and test accuracy, side by side.

    Raises:
        DataError: nothing to draw.
        InstallationError: matplotlib is not installed.
    """
    if not len(curves.train):
        raise DataError(f"{title}: no batch has been trained yet; nothing to plot")
    pyplot = _pyplot()
    batches = curves.train[:, 2].max()
    # An evaluation stands at the end of its epoch, a batch at its place inside it.
    position = curves.train[:, 1] - 1 + curves.train[:, 2] / batches
    with_test = len(curves.test) > 0
    figure, axes = pyplot.subplots(1, 1 + with_test, figsize=(5.5 + 5 * with_test, 4), squeeze=False)
    loss = axes[0, 0]
    loss.plot(position, curves.train[:, 3], color="tab:blue", linewidth=1, label="train, per batch")
    if with_test:
        loss.plot(curves.test[:, 1], curves.test[:, 2], "o-", color="tab:orange", label="test")
        accuracy = axes[0, 1]
        accuracy.plot(curves.test[:, 1], curves.test[:, 3], "o-", color="tab:green")
        best = int(curves.test[:, 3].argmax())
        accuracy.annotate(
            f"{curves.test[best, 3]:.4f}",
            (curves.test[best, 1], curves.test[best, 3]),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
        )
        accuracy.set(xlabel="epoch", ylabel="test accuracy", title="accuracy")
        accuracy.margins(0.08, 0.15)
    loss.set(xlabel="epoch", ylabel="negative log-likelihood", title="loss", ylim=(0, None))
    loss.legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(printable(title))
    _save(figure, path)


def plot_confusion(confusion: Confusion, classes: Sequence[str], path: Path, title: str) -> None:
    """The confusion matrix, rows normalised to shares of the true class, counts written where they fit. Of
    more than `MOST_IN_MATRIX` classes those that are in the most mistakes are drawn.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    photos = np.maximum(confusion.shown, 1)
    if len(classes) > MOST_IN_MATRIX:
        drawn = confusion.most_confused(MOST_DRAWN)
        title = f"{title}: the {len(drawn)} of {len(classes)} classes with the most mistakes"
        confusion, photos = confusion.among(drawn), photos[drawn]
        classes = [classes[index] for index in drawn]
    classes = [printable(name) for name in classes]
    count = len(classes)
    side = min(30.0, 3.5 + 0.35 * count)
    figure, axis = pyplot.subplots(figsize=(side + 1, side))
    shares = confusion.matrix() / photos[:, np.newaxis]
    # Not as an image: matplotlib would scale it up to the picture's pixels, which takes 0.8 GB.
    edges = np.arange(count + 1) - 0.5
    cells = axis.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(aspect="equal", ylim=(count - 0.5, -0.5))
    if count <= 40:
        for row, column, cell in zip(confusion.label, confusion.named, confusion.count, strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(cell), ha="center", va="center", color=color, fontsize=7)
    size = 8 if count <= 60 else 4
    axis.set_xticks(range(count), classes, rotation=90, fontsize=size)
    axis.set_yticks(range(count), classes, fontsize=size)
    axis.set(xlabel="named", ylabel="is", title=printable(title))
    figure.colorbar(cells, fraction=0.046, label="share of the class")
    _save(figure, path)


def plot_preview(preview: Preview, path: Path, title: str) -> None:
    """Photos in rows: as evaluation sees them, then as each epoch does.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    headings = ["evaluation", *(f"epoch {epoch}" for epoch in preview.epochs)]
    rows = preview.rows
    height, width, _ = rows[0].evaluated.shape
    size = (1.75 * len(headings), 1.5 + (1.75 * height / width + 0.25) * len(rows))
    figure, axes = pyplot.subplots(len(rows), len(headings), figsize=size, squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for pixels, axis in zip((row.evaluated, *row.trained), line, strict=True):
            axis.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        # The name may run over the next pictures: a blank keeps its line free, not its width.
        line[0].set_title(printable(row.name), loc="left", fontsize=8).set_in_layout(False)
        line[0].set_title(" ", fontsize=8)
    for heading, axis in zip(headings, axes[0], strict=True):
        axis.set_title(f"{heading}\n", fontsize=10)
    figure.suptitle(printable(title))
    figure.supxlabel(textwrap.fill(preview.note, 140), fontsize=8)
    _save(figure, path)


def plot_benchmark(benchmark: Benchmark, path: Path, title: str) -> None:
    """Images per second, and latency (median up to p99), by batch; one line for each use of the threads.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    batches = sorted({bare.batch for bare in benchmark.bare})
    uses = list(dict.fromkeys(bare.cores for bare in benchmark.bare))
    figure, (speed, latency) = pyplot.subplots(1, 2, figsize=(13, 4.5))
    for cores in uses:
        settings = [bare for bare in benchmark.bare if bare.cores == cores]
        positions = [batches.index(bare.batch) for bare in settings]
        style = {"marker": "s", "linestyle": "--"} if settings[0].threads_per_run > 1 else {"marker": "o"}
        color = f"C{uses.index(cores) % 10}"
        rates = [bare.images_per_second for bare in settings]
        speed.plot(positions, rates, color=color, label=cores, **style)
        medians = [bare.p50_ms for bare in settings]
        latency.plot(positions, medians, color=color, **style)
        latency.vlines(positions, medians, [bare.p99_ms for bare in settings], color=color, alpha=0.5)
    files = benchmark.from_files
    speed.axhline(
        files.images_per_second, color="black", linestyle=":", label=f"from files, batch {files.batch}"
    )
    speed.set(ylabel="images/s", title="bare session", ylim=(0, None))
    latency.set(ylabel="ms per run", title="latency: p50, and a line up to p99", ylim=(0, None))
    for axis in (speed, latency):
        axis.set_xlabel("batch")
        axis.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        axis.margins(x=0.08)
        axis.grid(alpha=0.3)
    latency.legend(*speed.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1.02, 1))
    figure.suptitle(printable(title))
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()  # Pillow does not notice that a disk took only a part of a JPEG
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a character that the font lacks becomes a box
            figure.tight_layout()
            figure.savefig(picture, dpi=150, format=path.suffix.lstrip(".").lower() or "png")
        artifacts.write_bytes(path, picture.getvalue())
    except ValueError as error:  # an unknown suffix
        raise DataError(f"{path}: {error}") from None
    finally:
        _pyplot().close(figure)
