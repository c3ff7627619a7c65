"""How fast a model is, by batch and by how it uses the cores."""

from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.inference.benchmark import Benchmark
from birdsonnx.reporting.plots import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_benchmark(benchmark: Benchmark, path: Path, title: str) -> None:
    """Write `benchmark_figure`. Raises InstallationError where matplotlib is not installed."""
    drawing.save(benchmark_figure(benchmark, title), path)


def benchmark_figure(benchmark: Benchmark, title: str) -> "Figure":
    """Images per second, and latency (median up to p99), by batch; one line for each use of the threads.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    batches = sorted({bare.batch for bare in benchmark.bare})
    uses = list(dict.fromkeys(bare.cores for bare in benchmark.bare))
    figure = drawing.blank(title, 11, 5)
    speed, latency = figure.subplots(1, 2)
    for cores in uses:
        settings = [bare for bare in benchmark.bare if bare.cores == cores]
        positions = [batches.index(bare.batch) for bare in settings]
        style = {"marker": "s", "linestyle": "--"} if settings[0].threads_per_run > 1 else {"marker": "o"}
        color = f"C{uses.index(cores) % 10}"
        rates = [bare.images_per_second for bare in settings]
        speed.plot(positions, rates, color=color, label=f"model alone, {cores}", **style)
        medians = [bare.p50_ms for bare in settings]
        latency.plot(positions, medians, color=color, **style)
        latency.vlines(positions, medians, [bare.p99_ms for bare in settings], color=color, alpha=0.5)
    files, fastest = benchmark.from_files, benchmark.fastest
    speed.axhline(
        files.images_per_second,
        color="black",
        linestyle=":",
        label=f"from photo files, {files.images_per_second:.1f} images/s",
    )
    speed.annotate(
        f"best {fastest.images_per_second:.1f}",
        (batches.index(fastest.batch), fastest.images_per_second),
        textcoords="offset points",
        xytext=(0, 7),
        ha="center",
    )
    # Room above the highest point, for its marker and the word.
    most = max(fastest.images_per_second, files.images_per_second)
    speed.set(ylabel="images/s", title="speed of the model alone, pixels in memory", ylim=(0, 1.15 * most))
    longest = max(bare.p99_ms for bare in benchmark.bare)
    latency.set(ylabel="ms", title="time of one run: median, and a line up to p99", ylim=(0, 1.08 * longest))
    for axis in (speed, latency):
        axis.set_xlabel("photos per run")
        axis.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        axis.margins(x=0.08)
        axis.grid(alpha=0.3)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
