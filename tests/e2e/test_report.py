"""`birdsonnx report` from the command line, and its pages in a browser."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdsonnx.extras import how_to_install
from birdsonnx.inference.keeping import hdf5
from birdsonnx.reporting.page import source
from tests.command import refused, succeed, succeed_json
from tests.conftest import make_workspace
from tests.tiny import make_class_folders, photo

jinja2 = pytest.importorskip("jinja2", reason="reports need Jinja2, and it is not installed")

HOSTILE = '<img src=x onerror="document.title=1">&amp;</script>'
"""Of a class: what would be a picture, an entity and the end of a script."""


def log_probs_of(scores: np.ndarray) -> np.ndarray:
    return (scores - np.log(np.exp(scores).sum())).astype(np.float32)


def write_predictions(path: Path, names: list[str], classes: list[str], seed: int = 0) -> None:
    """Of photos in this order: mostly the class of their turn, surely."""
    generator = np.random.default_rng(seed)
    with hdf5.writing(path, classes, None) as writer:
        for number, name in enumerate(names):
            scores = generator.normal(0, 1, len(classes))
            scores[number % len(classes)] += generator.normal(4, 2)
            writer.put(name, log_probs_of(scores))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run's folder: config, logs, checkpoints."""
    folder = make_workspace(tmp_path_factory.mktemp("trained"))
    make_class_folders(folder / "data" / "test", per_class=5, seed=3)
    run = folder / "runs" / "train_1"
    run.mkdir(parents=True)
    config = {
        "num_epochs": 3,
        "outfile": "runs/train_1/out_classifier.txt",
        "checkpoints": {"load": "model.onnx", "save": "runs/train_1/checkpoints"},
        "data": {"input_path": "data/train", "test_input_path": "data/valid", "batch_size": 8},
        "optimizer": {"type": "Adam", "learning_rate": 0.02},
    }
    (run / "config.json").write_text(json.dumps({"neural_network": config}))
    succeed("train", run / "config.json", cwd=folder)
    return folder


@pytest.fixture
def inside(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def text_of(path: Path | str) -> str:
    return Path(path).read_text(encoding="utf-8")


# From the command line


def test_a_run_has_one_file_with_all_in_it(inside):
    made = succeed_json("report", "runs/train_1")
    assert (made["output"], made["kind"], made["photos"]) == ("runs/train_1/report.html", "evaluation", 9)
    assert made["bytes"] == Path(made["output"]).stat().st_size < 5e6
    page = text_of(made["output"])
    for words in ("Accuracy on data/valid", "model_checkpoint_3.onnx", "Species by species", "learning_rate"):
        assert words in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    again = succeed("report", "runs/train_1")  # our own page is replaced
    assert "\nreplaced runs/train_1/report.html (" in again
    assert re.search(r"^accuracy [\d.]+ \([\d.]+ to [\d.]+\)", again, flags=re.MULTILINE)


def test_its_figures_are_those_of_evaluate(inside):
    model = "runs/train_1/checkpoints/model_checkpoint_3.onnx"
    expected = succeed_json("evaluate", "data/test", "--model", model)
    made = succeed_json("report", "runs/train_1", "--data", "data/test", "-o", "page.html")
    assert made["photos"] == 15
    assert [made[key] for key in ("accuracy", "top5", "loss")] == pytest.approx(
        [expected[key] for key in ("accuracy", "top5", "loss")]
    )
    low, high = made["interval"]
    assert 0 <= low < made["accuracy"] <= high <= 1


def test_several_ranks_make_the_same_report(inside):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    alone, both = (
        succeed_json("report", "runs/train_1", "--data", "data/test", "-o", f"{ranks}.html", ranks=ranks)
        for ranks in (1, 2)
    )
    for name in ("photos", "accuracy", "loss", "calibration_error"):
        assert both[name] == pytest.approx(alone[name], rel=1e-5)


def test_a_folder_of_checkpoints_tells_of_its_training_alone(inside):
    shutil.copytree("runs/train_1/checkpoints", "model_checkpoints_save", dirs_exist_ok=True)
    made = succeed_json("report", "model_checkpoints_save")
    assert (made["kind"], made["epochs"]) == ("training", 3)
    assert made["output"] == "model_checkpoints_save/report.html"
    said = succeed("report", "model_checkpoints_save")
    assert said.startswith("only the figures of the training: no config says where test photos are")
    assert "Test accuracy of the best epoch" in text_of("model_checkpoints_save/report.html")


def test_a_config_finds_what_its_run_left(inside):
    config = json.loads(text_of("runs/train_1/config.json"))
    config["neural_network"]["data"]["test_input_path"] = "data/nowhere"
    Path("mine.json").write_text(json.dumps(config))
    made = succeed_json("report", "mine.json")
    assert (made["output"], made["kind"]) == ("runs/train_1/out_classifier_report.html", "training")


@pytest.fixture
def trained_twice(tmp_path, monkeypatch) -> Path:
    """One config, trained with 2 epochs, then with 3 and another rate: the second logs are out_2_*.txt."""
    monkeypatch.chdir(make_workspace(tmp_path))
    config = {
        "num_epochs": 2,
        "outfile": "logs/out.txt",
        "checkpoints": {"load": "model.onnx", "save": "saved"},
        "data": {"input_path": "data/train", "test_input_path": "data/valid", "batch_size": 8},
        "optimizer": {"type": "Adam", "learning_rate": 0.02},
    }
    Path("config.json").write_text(json.dumps({"neural_network": config}))
    succeed("train", "config.json")
    succeed("train", "config.json", "--set", "num_epochs=3", "--set", "optimizer.learning_rate=0.05")
    assert Path("logs/out_2_train.txt").is_file()
    return tmp_path


def losses_in(log: str) -> list[float]:
    return [float(loss) for loss in np.loadtxt(log, ndmin=2)[:, 2]]


def test_the_logs_are_those_of_the_run_that_left_the_checkpoint(trained_twice):
    for log in ("logs/out_2_test.txt", "logs/out_test.txt"):
        made = source.find(Path("config.json"))
        assert made.curves is not None
        assert made.curves.test[:, 2].tolist() == losses_in(log)
        succeed("train", "config.json")  # the first again, in its own logs; now its checkpoint is the newest
    assert succeed_json("report", "config.json", "--data", "data/valid")["photos"] == 9
    Path("logs/out_train.txt").write_text("# time_s epoch batch loss grad_norm\n0.1 1 1 9.9 1\n")
    assert source.find(Path("config.json")).curves is None  # of the two none is of this run any more


def test_logs_of_a_run_without_checkpoints_are_known_by_its_command(trained_twice):
    whole = json.loads(text_of("config.json"))
    del whole["neural_network"]["checkpoints"]["save"]
    for name, rate in (("first.json", 0.02), ("second.json", 0.03)):
        whole["neural_network"]["optimizer"]["learning_rate"] = rate
        whole["neural_network"]["outfile"] = "bare.txt"
        Path(name).write_text(json.dumps(whole))
        succeed("train", name)
    for name, log in (("first.json", "bare_test.txt"), ("second.json", "bare_2_test.txt")):
        curves = source.find(Path(name)).curves
        assert curves is not None
        assert curves.test[:, 2].tolist() == losses_in(log)


def test_a_moved_run_takes_its_files_along(inside, tmp_path):
    shutil.copytree("runs/train_1", tmp_path / "elsewhere")
    made = succeed_json("report", tmp_path / "elsewhere", cwd=tmp_path)
    assert (made["kind"], made["epochs"]) == ("training", 3)


def test_a_benchmark_gives_the_speed(inside):
    model = "runs/train_1/checkpoints/model_checkpoint_3.onnx"
    spoken = succeed("benchmark", model, "--seconds", 1, "--batch-sizes", 1, "--threads", 1, "--json")
    Path("speed.json").write_text(spoken)
    made = succeed_json("report", model, "--data", "data/test", "--benchmark", "speed.json")
    assert made["images_per_second"] == json.loads(spoken)["from_files"]["images_per_second"]
    assert "by the benchmark speed.json" in text_of(made["output"])
    Path("speed.json").write_text(spoken.replace(json.loads(spoken)["sha256"], "0" * 64))
    assert "a benchmark of another model" in refused("report", model, "--benchmark", "speed.json")
    Path("speed.json").write_text("[]")
    assert "not what birdsonnx benchmark --json prints" in refused(
        "report", model, "--benchmark", "speed.json"
    )


def test_bad_photos_are_listed_and_make_the_exit_code_1(inside, tmp_path):
    shutil.copytree("data/test", tmp_path / "some")
    (tmp_path / "some" / "COOT" / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    line = refused("report", "runs/train_1", "--data", tmp_path / "some", "-o", tmp_path / "a.html", code=1)
    assert "bad.jpg" in line
    assert "Photos that could not be used" in text_of(tmp_path / "a.html")


def test_another_file_is_not_replaced(inside):
    Path("mine.html").write_text("mine")
    line = refused("report", "runs/train_1", "-o", "mine.html")
    assert (
        line == "birdsonnx: mine.html is there already, and no report of birdsonnx; name another file with -o"
    )
    assert text_of("mine.html") == "mine"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nothing"], "nothing: there is no such file or folder; give a run's folder (runs/train_1), the"),
        (["data"], "data: neither a config.json nor a model_checkpoint_*.onnx in it; give a run's folder"),
        (["model.onnx"], "model.onnx: this model was not trained here, and no photos are given; give --data"),
        (
            ["new.json"],
            "new.json: this training has left neither a checkpoint nor logs; first birdsonnx train",
        ),
        (["runs/train_1", "--photos", "data"], "--photos is for an output_*.h5, and runs/train_1 is none"),
        (["some.h5", "--data", "data"], "--data is for a run or a model, and some.h5 is none"),
        (
            ["some.h5", "--photos", "runs"],
            "runs: 'ANT/1.png' is not there, nor any other of these photos; give",
        ),
        (["some.h5", "--photos", "no"], "no: there is no such folder of photos"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_a_report_is_said_in_one_line(inside, words, line):
    write_predictions(Path("some.h5"), ["ANT/1.png", "BEE/1.png"], ["ANT", "BEE"])
    nowhere = {"input_path": "data/train"}
    Path("new.json").write_text(json.dumps({"neural_network": {"data": nowhere, "outfile": "none.txt"}}))
    assert refused("report", *words).startswith(f"birdsonnx: {line}")


def test_without_jinja_nothing_is_begun(inside, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'jinja2' else found(name, *more)\n"
    )
    path = os.pathsep.join([str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")])
    line = refused("report", "runs/train_1", fresh=True, environment={"PYTHONPATH": path})
    assert line == f"birdsonnx: a report needs Jinja2; {how_to_install('report')}"


def test_predictions_with_classes_in_their_names_are_evaluated(inside):
    names = [f"{name}/{number}.png" for number in range(4) for name in ("ANT", "BEE", "COOT")]
    write_predictions(Path("output_7.h5"), names, ["ANT", "BEE", "COOT"])
    made = succeed_json("report", "output_7.h5")
    assert (made["kind"], made["output"], made["photos"]) == ("evaluation", "output_7.html", 12)
    assert made["accuracy"] == succeed_json("evaluate", "output_7.h5")["accuracy"]


def test_what_lies_outside_the_folder_of_photos_is_not_shown(inside, tmp_path):
    (tmp_path / "photos").mkdir()
    for place in (tmp_path / "secret.png", tmp_path / "photos" / "1.png"):
        photo(0, np.random.default_rng(0)).save(place)
    with hdf5.writing(Path("outside.h5"), ["ANT", "BEE"], None) as writer:
        for name in ("1.png", "../secret.png"):
            with contextlib.suppress(ValueError):
                writer.put(name, log_probs_of(np.zeros(2)))
    made = succeed_json("report", "outside.h5", "--photos", tmp_path / "photos")
    assert (made["kind"], made["thumbnails"]) == ("review", 1)


def test_as_many_photos_are_shown_as_are_wanted(inside, tmp_path):
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        photo(0, np.random.default_rng(0)).save(tmp_path / name)
    write_predictions(Path("unknown.h5"), names, ["ANT", "BEE"])
    for most, shown in ((0, 0), (3, 3), (9, 5)):
        made = succeed_json("report", "unknown.h5", "--photos", tmp_path, "--thumbnails", most)
        assert made["thumbnails"] == shown
        assert text_of("unknown.html").count("data:image/webp;base64,") == shown


# In the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="pages are looked at by playwright, which is not installed"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("pages are looked at in Debian's chromium, which is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


class Seen:
    """A page in a browser, and what went wrong or out in it."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.troubles: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", self._asked)
        self._own = path.absolute().as_uri()
        self.page.goto(self._own)

    def _asked(self, request: Any) -> None:
        if request.url != self._own and not request.url.startswith("data:"):
            self.troubles.append(f"asked for {request.url}")

    def column(self, table: str, number: int) -> list[str]:
        """The texts of a table's column, from 1, of the rows that are shown."""
        rows = self.page.locator(f"{table} tbody tr:not([hidden])")
        return [text.strip() for text in rows.locator(f":nth-child({number})").all_inner_texts() if text]


@pytest.fixture
def look(browser: Any) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def open_page(path: Path | str, **options: Any) -> Seen:
            seen = Seen(browser, Path(path), **options)
            stack.callback(seen.context.close)
            return seen

        yield open_page


@pytest.fixture(scope="module")
def few(trained: Path) -> Path:
    """A report of the run on its test photos."""
    made = succeed_json("report", "runs/train_1", "--data", "data/test", "-o", "few.html", cwd=trained)
    return trained / made["output"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 60 classes, one of which is called by HTML."""
    folder = tmp_path_factory.mktemp("many")
    classes = [f"BIRD {number:02}" for number in range(59)] + [HOSTILE.replace("/", "\N{FULLWIDTH SOLIDUS}")]
    names = [f"{name}/{number}.png" for number in range(5) for name in classes]
    write_predictions(folder / "output_1.h5", names, classes)
    succeed("report", "output_1.h5", cwd=folder)
    return folder / "output_1.html"


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page to look through: 150 photos of 4 classes, two of them called by HTML, with thumbnails."""
    folder = tmp_path_factory.mktemp("review")
    names = [f"IMG_{number:03}.png" for number in range(149)] + ["<b onclick=alert(1)>.png"]
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number, name in enumerate(names):
        photo(number, generator).save(folder / "photos" / name)
    write_predictions(folder / "output_1.h5", names, ["ANT", "BEE", "COOT", HOSTILE])
    made = succeed_json("report", "output_1.h5", "--photos", "photos", cwd=folder)
    assert (made["kind"], made["photos"], made["thumbnails"]) == ("review", 150, 150)
    return folder / "output_1.html"


def test_it_renders_sorts_and_filters(look, few):
    seen = look(few)
    assert seen.page.locator("h1").inner_text() == "train_1"
    assert seen.page.locator("figure.chart svg").count() >= 3
    assert seen.page.locator(".card img").evaluate_all("all => all.every(one => one.src.startsWith('data:'))")
    heading = seen.page.locator("#class-table th", has_text="Species").first
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert seen.column("#class-table", 1) == ["ANT BIRD", "BEE-EATER", "COOT"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert seen.column("#class-table", 1) == ["COOT", "BEE-EATER", "ANT BIRD"]
    assert seen.page.locator("#class-table th[aria-sort]").count() == 1
    seen.page.get_by_label("Find a species").fill("bee")
    assert seen.column("#class-table", 1) == ["BEE-EATER"]
    assert seen.page.locator("#class-count").inner_text() == "1 found"
    assert seen.troubles == []


def test_numbers_sort_as_numbers(look, many):
    seen = look(many)
    seen.page.locator("#class-table th", has_text="Found").get_by_role("button").click()
    found = [float(text.split()[0]) for text in seen.column("#class-table", 4)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_it_is_light_or_dark_as_the_system_is_and_as_the_switch_says(look, few):
    def background(seen: Seen) -> tuple[int, ...]:
        color = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return tuple(map(int, re.findall(r"\d+", color)[:3]))

    light, dark = look(few, color_scheme="light"), look(few, color_scheme="dark")
    assert min(background(light)) > 200
    assert max(background(dark)) < 60
    light.page.get_by_role("button", name="Change to dark colours").click()
    assert background(light) == background(dark)
    dark.page.get_by_role("button", name="Change to light colours").click()
    assert min(background(dark)) > 200
    assert (light.troubles, dark.troubles) == ([], [])


def test_who_has_no_script_reads_the_same(look, few, review):
    seen = look(few, java_script_enabled=False)
    main = seen.page.locator("main").inner_text()
    for words in ("Species by species", "ANT BIRD", "What is taken for what", "The least certain"):
        assert words in main
    assert seen.page.get_by_label("Find a species").is_hidden()
    looked = look(review, java_script_enabled=False)
    assert looked.page.locator(".card").count() == 48
    assert "these are the 48 least certain photos" in looked.page.locator("main").inner_text()


def test_names_that_hold_html_are_text(look, many, review):
    seen = look(many)
    assert seen.page.locator("#class-table th", has_text="<img src=x").count() == 1
    looked = look(review)
    looked.page.get_by_label("Name or species contains").fill("<b onclick")
    assert looked.page.locator(".card").count() == 1
    assert looked.page.locator(".card .file").inner_text() == "<b onclick=alert(1)>.png"
    assert HOSTILE in looked.page.locator("#classes ~ .scroll tbody").inner_text()
    for each in (seen, looked):
        assert each.page.locator("main img[src=x], main b[onclick]").count() == 0
        assert each.troubles == []


def test_a_large_matrix_is_read_with_the_keyboard(look, many):
    seen = look(many)
    seen.page.locator("#matrix").focus()
    seen.page.keyboard.press("ArrowRight")
    assert re.search(
        r"was taken for[\s\S]*in \d+ of 5 photos", seen.page.locator("#matrix-says").inner_text()
    )
    said = seen.page.locator("#matrix-says").inner_text()
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.locator("#matrix-says").inner_text() != said
    assert seen.page.locator("table.matrix tbody tr").count() <= 24
    assert seen.troubles == []


def test_photos_are_looked_through_page_by_page(look, review):
    seen = look(review)
    page = seen.page
    assert page.locator("#page").inner_text() == "150 photos, page 1 of 3"
    assert page.locator(".card").count() == 60  # only these are elements
    assert page.get_by_role("button", name="Previous page").first.is_disabled()
    page.get_by_role("button", name="Next page").first.click()
    assert page.locator("#page").inner_text() == "150 photos, page 2 of 3"
    page.get_by_label("Order").select_option("least")
    shown = [float(text) for text in page.locator(".card p:not(.next) .p").all_inner_texts()]
    assert shown == sorted(shown)
    assert page.locator(".card img").evaluate_all("all => all.every(one => one.complete || one.src)")
    assert page.locator(".card img").count() == 60
    page.get_by_label("Species", exact=True).select_option(label="ANT (" + _count(page, "ANT") + ")")
    assert set(page.locator(".card p b").all_inner_texts()) == {"ANT"}
    page.get_by_label("Name or species contains").fill("no such photo")
    assert page.locator("#page").inner_text() == "0 photos, page 1 of 1"
    assert seen.troubles == []


def _count(page: Any, species: str) -> str:
    row = page.locator("#classes ~ .scroll tbody tr", has_text=species).first
    return str(row.locator("td").first.inner_text())


def test_parts_have_names_and_headings_are_in_order(look, few, many, review):
    for path in (few, many, review):
        page = look(path).page
        levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        for part in ("main", "nav[aria-label]", "header", "footer", "a.skip"):
            assert page.locator(part).count() == 1
        nameless = "all => all.filter(one => !one.caption || !one.querySelector('th[scope]')).length"
        assert page.locator("table").evaluate_all(nameless) == 0
        assert page.locator("img:not([alt]), svg[role=img]:not([aria-label])").count() == 0
        fields = "all => all.filter(one => !one.labels.length).length"
        assert page.locator("input, select").evaluate_all(fields) == 0
        targets = "all => all.filter(one => !document.querySelector(one.getAttribute('href'))).length"
        assert page.locator("a[href^='#']").evaluate_all(targets) == 0
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"


CONTRASTS = """() => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const over = (colors) => {
    pen.clearRect(0, 0, 1, 1);
    for (const color of colors) { pen.fillStyle = color; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const found = new Set();
  for (const element of document.querySelectorAll('main *, header *, footer *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.matches(':disabled')) continue;
    const style = getComputedStyle(element);
    const behind = [];
    for (let up = element; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const ink = element.closest('svg') ? style.fill : style.color;
    const kind = element.className.baseVal ?? element.className;
    found.add(JSON.stringify([over(behind), over([...behind, ink]), kind]));
  }
  return [...found].map(JSON.parse);
}"""


def luminance(color: list[int]) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    parts = [value / 255 for value in color]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(look, few, many, review, scheme):
    """At least 4.5 to 1, as WCAG's level AA asks."""
    for path in (few, many, review):
        for behind, ink, kind in look(path, color_scheme=scheme).page.evaluate(CONTRASTS):
            dark, light = sorted((luminance(behind), luminance(ink)))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (path.name, kind, behind, ink)


def test_a_phone_need_not_scroll_sideways(look, few, many, review):
    for path in (few, many, review):
        page = look(path, viewport={"width": 360, "height": 740}).page
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
