"""Loss and accuracy over a training."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import DataError
from birdsonnx.reporting.plots import drawing
from birdsonnx.reporting.printable import printable
from birdsonnx.reporting.training_log import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES = 20
"""From a largest loss of so many times the smallest on, the axis is logarithmic: on a plain one, the later
half of such a training is a line on the ground."""


def plot_curves(curves: Curves, path: Path, title: str, record: str | None = None) -> None:
    """Write `curves_figure`, with the `record` of the command.

    Raises:
        DataError: nothing to draw.
        InstallationError: matplotlib is not installed.
    """
    drawing.save(curves_figure(curves, title), path, record=record)


def curves_figure(curves: Curves, title: str) -> "Figure":
    """Loss over training (each batch, and each evaluation) and test accuracy, side by side.

    Raises:
        DataError: nothing to draw.
        InstallationError: matplotlib is not installed.
    """
    if not len(curves.train):
        raise DataError(f"{title}: no batch has been trained yet; nothing to plot")
    with_test = len(curves.test) > 0
    figure = drawing.blank(title, 5.5 + 5 * with_test, 4)
    loss, *accuracy = figure.subplots(1, 1 + with_test, squeeze=False)[0]
    tested_on = printable(curves.tested_on or "test")
    _draw_loss(loss, curves, tested_on)
    if accuracy:
        _draw_accuracy(accuracy[0], curves.test, tested_on)
    for axis in (loss, *accuracy):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_loss(axis: "Axes", curves: Curves, tested_on: str) -> None:
    batches = curves.train[:, 2].max()
    # An evaluation stands at the end of its epoch, a batch at its place inside it.
    position = curves.train[:, 1] - 1 + curves.train[:, 2] / batches
    axis.plot(position, curves.train[:, 3], color="tab:blue", linewidth=1, label="train, each batch")
    if len(curves.test):
        axis.plot(
            curves.test[:, 1], curves.test[:, 2], "o-", color="tab:orange", label=f"{tested_on}, each epoch"
        )
    axis.set(xlabel="epoch", ylabel="loss", title="loss")
    losses = np.concatenate([curves.train[:, 3], curves.test[:, 2]])
    positive = losses[losses > 0]
    if len(positive) and positive.max() >= DECADES * positive.min():
        axis.set_yscale("log", nonpositive="clip")
        axis.yaxis.set_major_formatter("{x:g}")  # powers would be formulas, which names must not be
    else:
        axis.set_ylim(0, None)
    axis.legend()


def _draw_accuracy(axis: "Axes", test: npt.NDArray[np.float64], tested_on: str) -> None:
    axis.plot(test[:, 1], test[:, 3], "o-", color="tab:green")
    axis.set(xlabel="epoch", ylabel=f"accuracy on {tested_on}", title="accuracy")
    axis.margins(0.08, 0.15)
    best = int(test[:, 3].argmax())
    epoch, accuracy = test[best, 1], test[best, 3]
    # The words stay inside the axes, which end soon beyond the first and the last epoch.
    share = (epoch - test[0, 1]) / max(test[-1, 1] - test[0, 1], 1)
    axis.annotate(
        f"best {accuracy:.4f}, epoch {epoch:.0f}",
        (epoch, accuracy),
        textcoords="offset points",
        xytext=(0, 7),
        ha="left" if share < 0.25 and len(test) > 1 else "right" if share > 0.75 else "center",
    )
