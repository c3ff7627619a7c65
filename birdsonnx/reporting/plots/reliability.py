"""Whether probabilities mean what they say, before and after calibrating."""

from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.inference.calibrating.calibration import Calibration, Figures
from birdsonnx.inference.evaluating.reliability import wilson_interval
from birdsonnx.reporting.plots import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_reliability(calibration: Calibration, path: Path, title: str) -> None:
    """Write `reliability_figure`. Raises InstallationError where matplotlib is not installed."""
    drawing.save(reliability_figure(calibration, title), path)


def reliability_figure(calibration: Calibration, title: str) -> "Figure":
    """Side by side: of the answers of each probability, how many are right, with the interval of 95 % that
    so few photos leave open, and below how many answers there are.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    figure = drawing.blank(title, 9, 5.2)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(4, 1))
    temperature = f"after, temperature {calibration.temperature:.3f}"
    sides = (("before", calibration.before), (temperature, calibration.after))
    for (name, figures), curve, counts in zip(sides, axes[0], axes[1], strict=True):
        _draw_curve(curve, figures, name)
        _draw_counts(counts, figures)
    axes[0][0].set_ylabel("share of right answers")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    axes[1][0].set_ylabel("photos")
    return figure


def _draw_curve(axis: "Axes", figures: Figures, name: str) -> None:
    found = figures.reliability
    filled = [each for each in found.bins if each.photos]
    axis.plot((0, 1), (0, 1), "--", color="grey", linewidth=1, label="as sure as it is right")
    axis.bar(
        [each.low for each in filled],
        [each.accuracy for each in filled],
        [each.high - each.low for each in filled],
        align="edge",
        color="tab:blue",
        alpha=0.35,
        edgecolor="white",
    )
    confidence, accuracy = [each.confidence for each in filled], [each.accuracy for each in filled]
    bounds = [wilson_interval(round(each.accuracy * each.photos), each.photos) for each in filled]
    reach = [
        [right - low for right, (low, _) in zip(accuracy, bounds, strict=True)],
        [high - right for right, (_, high) in zip(accuracy, bounds, strict=True)],
    ]
    axis.errorbar(
        confidence,
        accuracy,
        reach,
        fmt="o",
        color="tab:blue",
        capsize=3,
        label="the model, with the 95 % interval of so few photos",
    )
    axis.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        title=f"{name}\ncalibration error {found.expected_error:.4f}, loss {figures.loss:.4f}",
    )
    axis.grid(alpha=0.3)


def _draw_counts(axis: "Axes", figures: Figures) -> None:
    bins = figures.reliability.bins
    axis.bar(
        [each.low for each in bins],
        [each.photos for each in bins],
        [each.high - each.low for each in bins],
        align="edge",
        color="tab:gray",
        edgecolor="white",
    )
    axis.set(
        xlabel="probability of the answer", yscale="log", ylim=(0.7, 2 * sum(each.photos for each in bins))
    )
    axis.yaxis.set_major_formatter("{x:g}")  # powers would be formulas, which names must not be
    axis.grid(alpha=0.3)
