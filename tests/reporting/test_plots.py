"""Plots: a real file of the right format, or none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.inference.evaluating.confusion import Confusion
from birdsonnx.reporting.augmentation import Preview, Row
from birdsonnx.reporting.plots import plot_confusion, plot_curves, plot_preview
from birdsonnx.reporting.plots.confusion import confusion_figure
from birdsonnx.reporting.plots.curves import curves_figure
from birdsonnx.reporting.plots.preview import preview_figure
from birdsonnx.reporting.training_log import Curves
from tests.conftest import disk_of

matplotlib = pytest.importorskip("matplotlib")

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF"}


def curves(epochs: int = 3, batches: int = 4, tested: bool = True, tested_on: str | None = "valid") -> Curves:
    steps = [(epoch, batch) for epoch in range(1, epochs + 1) for batch in range(1, batches + 1)]
    train = [(index, *step, 3 / (1 + index), 0.5) for index, step in enumerate(steps)]
    test = [(epoch, epoch, 2 / epoch, 1 - 1 / (epoch + 1)) for epoch in range(1, epochs + 1)]
    return Curves(
        np.array(train, np.float64).reshape(-1, 5),
        np.array(test if tested else [], np.float64).reshape(-1, 4),
        tested_on,
    )


def preview(
    rows: int = 2, height: int = 12, width: int = 16, channels: int = 3, note: str = "seed 5", epochs: int = 5
) -> Preview:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (rows, 1 + epochs, height, width, channels), np.uint8)
    return Preview(
        tuple(Row(f"BIRD $1$/{n}.jpg", first, tuple(rest)) for n, (first, *rest) in enumerate(pictures)),
        tuple(range(1, epochs + 1)),
        note,
    )


CONFUSION = Confusion.of({(0, 0): 7, (0, 2): 3, (2, 0): 1, (2, 1): 123, (2, 2): 4}, 3)
NAMES = ("ANT BIRD", "BEE-EATER", "COOT")


@pytest.mark.parametrize("name", ["plot.png", "plot.svg", "plot.pdf", "plot.jpg", "plot.tif"])
def test_a_full_disk_leaves_the_old_file(name):
    """Of a JPEG Pillow does not notice that only a part was written."""
    path = Path(name)
    plot_confusion(CONFUSION, NAMES, path, "data/test")
    whole = path.stat().st_size
    path.write_bytes(b"old")
    for size in (100, whole // 2, whole - 1):
        with disk_of(size), pytest.raises(ArtifactError, match="File too large; the file that was there"):
            plot_confusion(CONFUSION, NAMES, path, "data/test")
        assert path.read_bytes() == b"old"
    assert not list(Path().glob(".*"))


def test_names_that_no_font_has_or_that_are_no_text():
    """Warnings are errors here: matplotlib would print each of them, with the name in it."""
    names = ("\x1b[2J", "鳥\U0001f426", "\udcff$x^{$")
    plot_confusion(CONFUSION, names, Path("plot.png"), f"data/{names[0]}\n{names[2]}")
    assert Path("plot.png").read_bytes().startswith(SIGNATURES["png"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("plot.png", "png"), ("PLOT.PNG", "png"), ("plot", "png"), ("plot.svg", "svg"), ("a/b/plot.pdf", "pdf")],
)
def test_the_suffix_gives_the_format(name, kind):
    for draw in (
        lambda path: plot_curves(curves(), path, "out.txt"),
        lambda path: plot_confusion(CONFUSION, NAMES, path, "data/test"),
        lambda path: plot_preview(preview(), path, "config.json"),
    ):
        path = Path(name)
        draw(path)
        content = path.read_bytes()
        assert content.startswith(SIGNATURES[kind])
        assert len(content) > 3000
        assert [found.name for found in path.parent.iterdir() if found.is_file()] == [path.name]


@pytest.mark.parametrize(
    ("epochs", "batches", "tested"),
    [(1, 1, True), (1, 1, False), (1, 30, False), (30, 1, True), (3, 4, True)],
)
def test_curves_of_any_length(epochs, batches, tested):
    plot_curves(curves(epochs, batches, tested), Path("plot.png"), "out.txt")
    with Image.open("plot.png") as image:
        assert len(image.convert("RGB").getcolors(10**6)) > 10
        assert image.width > (1200 if tested else 600)


@pytest.mark.parametrize("count", [1, 2, 41, 11_000])
def test_confusion_of_any_number_of_classes(count):
    cells = {(n, (7 * n) % count): 5 for n in range(count)}
    plot_confusion(Confusion.of(cells, count), [f"CLASS {n}" for n in range(count)], Path("plot.png"), "test")
    with Image.open("plot.png") as image:
        assert len(image.convert("RGB").getcolors(10**6)) > 10
        assert min(image.size) > 300


def test_the_confusion_names_its_classes_and_counts():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_confusion(CONFUSION, NAMES, Path("plot.svg"), "data/test")
    text = Path("plot.svg").read_text()
    for word in (*NAMES, "data/test", ">7<", ">3<", ">123<", ">4<"):
        assert word in text


def test_of_many_classes_those_with_the_most_mistakes_are_drawn():
    count = 1500
    mistakes = {(n, n + 1): 3 for n in range(1000, 1002)}
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_confusion(
            Confusion.of({(n, n): 9 for n in range(count)} | mistakes, count),
            [f"CLASS {n}!" for n in range(count)],
            Path("plot.svg"),
            "test",
        )
    text = Path("plot.svg").read_text()
    assert "the 100 of 1500 classes with the most mistakes" in text
    assert all(f">CLASS {n}!<" in text for n in (1000, 1001, 1002))
    assert text.count(">CLASS ") == 4 * 100  # on all four sides


def words_of(figure) -> list[str]:
    """All text that a figure shows, ticks included."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.parametrize(("tested_on", "called"), [("valid", "valid"), (None, "test"), ("a\nb", "a\\nb")])
def test_the_curves_say_what_they_show(tested_on, called):
    figure = curves_figure(curves(tested_on=tested_on), "out_classifier")
    loss, accuracy = figure.axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "train, each batch",
        f"{called}, each epoch",
    ]
    assert (loss.get_ylabel(), loss.get_xlabel()) == ("loss", "epoch")
    assert accuracy.get_ylabel() == f"accuracy on {called}"
    assert [text.get_text() for text in accuracy.texts] == ["best 0.7500, epoch 3"]
    assert figure.get_suptitle() == "out_classifier"


@pytest.mark.parametrize(
    ("losses", "scale"), [((3.0, 0.16), "linear"), ((3.0, 0.15), "log"), ((3.0, 0.0), "linear")]
)
def test_a_loss_over_decades_is_on_a_logarithmic_axis(losses, scale):
    found = curves(epochs=1, batches=2, tested=False)
    found.train[:, 3] = losses
    [axis] = curves_figure(found, "out").axes
    assert axis.get_yscale() == scale
    assert (axis.get_ylim()[0] == 0) == (scale == "linear")


def test_a_logarithmic_axis_has_plain_numbers():
    """matplotlib writes powers as formulas, and they are off: a class name may hold a dollar sign."""
    found = curves()
    found.train[-1, 3] = 0.002
    words = words_of(curves_figure(found, "out"))
    assert {"0.01", "0.1", "1"} <= set(words)
    assert not any("$" in word for word in words)


@pytest.mark.parametrize("best", [1, 10, 20])
def test_the_best_accuracy_is_written_inside_the_picture(best):
    found = curves(epochs=20)
    found.test[:, 3] = np.where(found.test[:, 1] == best, 0.98, 0.5)
    figure = curves_figure(found, "out")
    figure.draw_without_rendering()
    [word] = figure.axes[1].texts
    assert word.get_text() == f"best 0.9800, epoch {best}"
    around, box = figure.bbox, word.get_window_extent()
    assert around.x0 <= box.x0 < box.x1 <= around.x1
    assert box.y1 <= figure.axes[1].bbox.y1


@pytest.mark.parametrize("count", [3, 70])
def test_the_confusion_says_which_side_is_which(count):
    names = [f"CLASS {number}" for number in range(count)]
    figure = confusion_figure(Confusion.of({(0, 1): 3, (1, 1): 2}, count), names, "m.onnx on data/test")
    axis, bar = figure.axes
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("true species", "predicted species")
    assert (figure.get_suptitle(), bar.get_ylabel()) == (
        "m.onnx on data/test",
        "share of the true species' photos",
    )
    assert [label.get_text() for label in axis.get_yticklabels()][:count] == names, "and on the other side"
    counted = [(text.get_position(), text.get_text()) for text in axis.texts]
    assert counted == ([((1, 0), "3"), ((1, 1), "2")] if count == 3 else [])
    figure.draw_without_rendering()
    for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        box = label.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert figure.bbox.y0 <= box.y0
    heights = [label.get_window_extent().height for label in axis.get_yticklabels()]
    assert max(heights) <= axis.bbox.height / count, "names do not overlap"


@pytest.mark.parametrize(("epochs", "headings"), [(0, ["every epoch, and evaluation"]), (2, None)])
def test_the_preview_has_a_column_for_each_epoch_that_differs(epochs, headings):
    figure = preview_figure(preview(epochs=epochs), "config.json")
    assert len(figure.axes) == 2 * (1 + epochs)
    titles = [axis.get_title().strip() for axis in figure.axes[: 1 + epochs]]
    assert titles == (headings or ["evaluation", "epoch 1", "epoch 2"])


def test_the_preview_names_its_photos_epochs_and_transforms():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_preview(preview(note="seed 5: random_zoom 0.3"), Path("plot.svg"), "config.json")
    text = Path("plot.svg").read_text()
    headings = ("evaluation", *(f"epoch {epoch}" for epoch in range(1, 6)))
    for word in ("config.json", "seed 5: random_zoom 0.3", "BIRD $1$/0.jpg", "BIRD $1$/1.jpg", *headings):
        assert text.count(f">{word}<") == 1
    assert text.count("<image") == 12


@pytest.mark.parametrize(
    ("rows", "height", "width", "channels"), [(1, 12, 16, 3), (6, 32, 32, 1), (6, 10, 80, 3), (2, 80, 10, 3)]
)
def test_previews_of_any_shape_show_their_pictures(rows, height, width, channels):
    shown = preview(rows, height, width, channels, "word " * 100)
    black = np.zeros_like(shown.rows[0].evaluated)
    shown = Preview(tuple(Row(row.name, black, (black,) * 5) for row in shown.rows), shown.epochs, shown.note)
    plot_preview(shown, Path("plot.png"), "config.json")
    with Image.open("plot.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels[:, [0, -1]] == 255).all()
    share = (pixels == 0).mean()
    assert share > 0.25 * min(1, height / width, width / height), share


def test_nothing_to_plot_is_refused():
    with pytest.raises(DataError, match=r"out\.txt: no batch has been trained yet"):
        plot_curves(curves(epochs=0), Path("plot.png"), "out.txt")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", ["plot.xyz", "plot.txt"])
def test_an_unknown_suffix_is_refused(name):
    with pytest.raises(DataError, match=name):
        plot_curves(curves(), Path(name), "out.txt")
    with pytest.raises(DataError, match=name):
        plot_confusion(CONFUSION, NAMES, Path(name), "data/test")
    assert not list(Path().iterdir())


def test_a_plot_that_cannot_be_written():
    Path("plot.png").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot write plot\.png"):
        plot_curves(curves(), Path("plot.png"), "out.txt")


def test_figures_are_closed():
    from matplotlib import pyplot

    plot_curves(curves(), Path("plot.png"), "out.txt")
    with pytest.raises(DataError):
        plot_confusion(CONFUSION, NAMES, Path("plot.xyz"), "data/test")
    assert pyplot.get_fignums() == []


def test_a_class_name_with_dollars_is_no_formula():
    plot_confusion(Confusion.of({(0, 0): 1, (1, 1): 1}, 2), [r"A $\frac$ B", "B"], Path("p.png"), "t")
    assert Path("p.png").stat().st_size


def test_a_long_title_is_not_cut():
    title = "model_checkpoints_save/model_checkpoint_30.onnx on data/test: accuracy 0.9583"
    figure = confusion_figure(CONFUSION, NAMES, title)
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert "".join(figure.get_suptitle().split()) == "".join(title.split())
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
