"""The benchmark: the clock, the budget, figures that agree with each other."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.errors import BirdsonnxError, DataError, ModelError
from birdsonnx.images.inputs import collect
from birdsonnx.inference import benchmark
from birdsonnx.inference import timing as timing_module
from birdsonnx.inference.benchmark import Request, decodable, powers_of_two, run
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.timing import Timing, timed
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.plots import plot_benchmark, require_drawable
from birdsonnx.reporting.tables import benchmark_lines
from tests.tiny import SIZE

QUIET = Console(json=True)


# --- The clock ------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only while work is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, *durations: float):
        """Work that takes these times, then the last one again and again."""
        times = list(durations)

        def once() -> None:
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return once


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing_module, "perf_counter", clock)
    return clock


def test_each_run_is_timed_and_the_warm_up_is_not(clock):
    timing = timed(clock.work(5, 1, 2, 3), 100 + 15)
    assert timing.durations_s == (1, 2, 3, 3)  # a fifth would end at 117
    assert timing.elapsed_s == 9


def test_a_share_that_is_too_short_still_gets_one_run(clock):
    timing = timed(clock.work(7), 0)
    assert (timing.durations_s, timing.elapsed_s, clock.now) == ((7,), 7, 114)


def test_a_known_sleep_is_measured():
    timing = timed(lambda: time.sleep(0.02), time.perf_counter() + 0.4)
    assert 0.02 <= timing.percentile_s(50) < 0.035
    assert timing.percentile_s(50) <= timing.percentile_s(90) <= timing.percentile_s(99)
    assert sum(timing.durations_s) == pytest.approx(timing.elapsed_s, rel=0.2)


def test_streams_run_at_the_same_time():
    # Each run waits until the other stream's has begun: one after the other they would break the barrier.
    both = threading.Barrier(2, timeout=10)
    timing = timed(both.wait, 0, streams=2)
    assert len(timing.durations_s) == 2


def test_percentiles_are_interpolated_linearly():
    timing = Timing((0.01, 0.02, 0.03, 0.04, 0.05), 0.15)
    found = [timing.percentile_s(percent) for percent in (0, 50, 90, 100)]
    np.testing.assert_allclose(found, [0.01, 0.03, 0.046, 0.05])


@pytest.mark.parametrize(
    ("most", "expected"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_powers_of_two(most, expected):
    assert powers_of_two(most) == expected


# --- Measuring ------------------------------------------------------------------------------------------


@pytest.fixture
def found(workspace, monkeypatch):
    """Two streams whatever the machine has; the children are counted, not started."""
    monkeypatch.setattr(benchmark, "_predict_one", lambda *_: time.sleep(0.01))
    return run(Request(Path("model.onnx"), "data/valid", 1, (4, 1, 4), (1, 2)), QUIET)


def test_every_setting_is_measured_once(found):
    settings = [(bare.streams, bare.threads_per_run, bare.batch) for bare in found.bare]
    assert settings == [(1, 1, 1), (1, 1, 4), (2, 1, 1), (2, 1, 4), (1, 2, 1), (1, 2, 4)]


def test_the_figures_agree_with_each_other(found):
    for bare in found.bare:
        assert bare.runs >= bare.streams
        assert bare.images == bare.runs * bare.batch
        assert bare.images_per_second * bare.elapsed_s == pytest.approx(bare.images)
        assert 0 < bare.p50_ms <= bare.p90_ms <= bare.p99_ms < 1000 * bare.elapsed_s + 1
    files = found.from_files
    assert files.images_per_second * files.elapsed_s == pytest.approx(files.images)
    assert files.ratio_to_bare == pytest.approx(files.images_per_second / found.fastest.images_per_second)
    assert (files.streams, files.photos) == (2, "9 of 9 in data/valid")
    assert found.first_prediction_s >= 0.01
    assert found.load_s > 0
    assert found.peak_rss_mb is None or 20 < found.peak_rss_mb < 100_000
    assert (found.input_shape, found.classes, found.refused) == ((SIZE, SIZE, 3), 3, ())


def test_the_budget_is_kept(found):
    # The tiny network's runs are microseconds, so nothing overruns; the rest is a slow machine's.
    assert 0.5 < found.elapsed_s < 3


def test_nothing_is_left_behind(found, workspace):
    assert sorted(path.name for path in workspace.iterdir()) == ["data", "model.onnx"]


def test_a_budget_that_is_too_short_is_told(workspace, monkeypatch):
    monkeypatch.setattr(benchmark, "_predict_one", lambda *_: None)
    found = run(Request(Path("model.onnx"), None, 1e-6, (1,), (1,)), QUIET)
    assert [bare.runs for bare in found.bare] == [1]
    [note] = found.notes
    assert "1 of 1 settings had fewer than 5 runs" in note
    assert f"note: {note}" in benchmark_lines(found)
    assert found.from_files.photos == f"16 made JPEGs of {SIZE} x {SIZE}"


def test_nothing_of_the_plot_is_cut_or_covered(found):
    pytest.importorskip("matplotlib")
    from birdsonnx.reporting.plots.benchmark import benchmark_figure

    figure = benchmark_figure(found, "here")
    figure.draw_without_rendering()
    speed, latency = figure.axes
    assert speed.get_title() == "speed of the model alone, pixels in memory"
    assert speed.get_ylim()[1] > 1.1 * found.fastest.images_per_second
    assert latency.get_ylim()[1] > max(bare.p99_ms for bare in found.bare)
    [best] = speed.texts
    assert best.get_text() == f"best {found.fastest.images_per_second:.1f}"
    [legend] = figure.legends
    around = legend.get_window_extent()
    assert not any(around.overlaps(axis.get_tightbbox()) for axis in (speed, latency))
    assert figure.bbox.y0 <= around.y0
    rate = found.from_files.images_per_second
    assert legend.get_texts()[-1].get_text() == f"from photo files, {rate:.1f} images/s"


def test_the_table_and_the_plot_name_every_setting(found):
    matplotlib = pytest.importorskip("matplotlib")
    lines = benchmark_lines(found)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_benchmark(found, Path("plot.svg"), "here")
    drawn = Path("plot.svg").read_text()
    for cores in ("1 stream x 1 thread", "2 streams x 1 thread", "1 stream x 2 threads"):
        assert sum(line.startswith(f"{cores} ") for line in lines) == 2
        assert drawn.count(f">model alone, {cores}<") == 1
    plot_benchmark(found, Path("plot.png"), "here")
    with Image.open("plot.png") as image:
        assert len(image.convert("RGB").getcolors(10**6)) > 10
    assert json.loads(json.dumps(found.as_json()))["bare"][0]["p50_ms"] == found.bare[0].p50_ms


# --- What cannot be measured ----------------------------------------------------------------------------


def test_photos_are_spread_over_those_given(workspace, monkeypatch):
    monkeypatch.setattr(benchmark, "PHOTOS", 4)
    classifier = open_classifier(Path("model.onnx"), "model.onnx", 9, 1)
    photos = collect(["data/valid"])
    photos[3].path.write_text("no picture")
    good, pixels, refused = decodable(classifier, photos)
    assert good == [photos[0], photos[6]]
    np.testing.assert_array_equal(pixels, [classifier.decoder(photo.path) for photo in good])
    assert len(refused) == 1
    assert str(photos[3].path) in refused[0]


def test_no_photo_that_can_be_used(workspace):
    for number in range(3):
        Path(f"data/valid/COOT/{number:03}.png").write_text("no picture")
    request = Request(Path("model.onnx"), "data/valid/COOT", 1)
    with pytest.raises(DataError, match=r"none of 3 photos can be used; the first: .*000\.png"):
        run(request, QUIET)


def test_a_prediction_that_fails_says_why(workspace):
    [photo, *_] = collect(["data/valid"])
    with pytest.raises(BirdsonnxError, match=r"exit code 2 \(birdsonnx: nothing\.onnx: there is no such"):
        benchmark._predict_one(benchmark.Request(), Path("nothing.onnx"), photo, Path("out"))


def test_no_model():
    with pytest.raises(ModelError, match="train first, or name a model"):
        run(Request(), QUIET)


@pytest.mark.parametrize("name", ["plot", "plot.png", "a/PLOT.SVG", "plot.pdf"])
def test_plots_that_can_be_drawn(name):
    pytest.importorskip("matplotlib")
    require_drawable(Path(name))


def test_a_plot_that_cannot_be_drawn_is_refused_before_any_work():
    pytest.importorskip("matplotlib")
    with pytest.raises(DataError, match=r"plot\.txt: a plot is a \.png, \.svg, \.pdf"):
        require_drawable(Path("plot.txt"))
