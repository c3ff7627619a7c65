"""Numbers as pictures, by matplotlib: a file for each kind, which draws a Figure and writes it."""

from birdsonnx.reporting.plots.benchmark import plot_benchmark
from birdsonnx.reporting.plots.comparison import plot_comparison
from birdsonnx.reporting.plots.confusion import plot_confusion
from birdsonnx.reporting.plots.curves import plot_curves
from birdsonnx.reporting.plots.drawing import command_of, require_drawable
from birdsonnx.reporting.plots.preview import plot_preview
from birdsonnx.reporting.plots.reliability import plot_reliability

__all__ = [
    "command_of",
    "plot_benchmark",
    "plot_comparison",
    "plot_confusion",
    "plot_curves",
    "plot_preview",
    "plot_reliability",
    "require_drawable",
]
