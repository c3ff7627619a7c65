"""A server whose model says of some photos that it is not sure, or that they show none of its classes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from birdsonnx.model.model_file import BirdModel
from tests.browser import cards, chromium, opened
from tests.command import succeed_json
from tests.serving.conftest import CLASSES, Server, served
from tests.tiny import make_class_folders, tiny_model, with_known


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and such a model."""
    folder = tmp_path_factory.mktemp("judging")
    make_class_folders(folder / "data", CLASSES, per_class=4)
    model = tiny_model(3, CLASSES)
    limits = {"precision": 0.9, "values": [0.8, 0.8, 0.5]}
    model = BirdModel(model.proto, model.metadata.having(thresholds=limits), model.where)
    with_known(model, -0.55).save(folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def server(judging: Path) -> Iterator[Server]:
    with served("model.onnx", cwd=judging) as server:
        yield server


@pytest.fixture(scope="module")
def expected(judging):
    """What `predict` says of each."""
    words = ["predict", "data", "--model", "model.onnx", "--top-k", "3", "-o", "out"]
    return {each["name"]: each for each in succeed_json(*words, cwd=judging)["predictions"]}


def test_a_server_says_what_predict_says(server, judging, expected):
    assert {each.get("level", "class") for each in expected.values()} == {"class", "unsure", "unknown"}
    for name, each in expected.items():
        [found] = server.send((name, (judging / "data" / name).read_bytes())).json["predictions"]
        assert list(found) == list(each)
        for key in ("said", "level"):
            assert found.get(key) == each.get(key)
        assert found["known"] == pytest.approx(each["known"], abs=1e-5)
        assert len(found["top"]) == 3


def test_the_page_says_so_too(server, judging, expected):
    titles = {"unknown": "Unknown", "unsure": "Unsure, perhaps {}", "class": "{}"}
    by_level = {each.get("level", "class"): name for name, each in expected.items()}
    with chromium() as browser, opened(browser, server.url) as page:
        for count, (level, name) in enumerate(by_level.items(), 1):
            page.set_input_files("#choose", [judging / "data" / name])
            first = cards(page, count)[0]
            assert first["title"] == titles[level].format(expected[name]["top"][0][0])
            assert len(first["names"]) == 3
            assert page.get_by_role("status").inner_text().startswith(f"{Path(name).name}: ")
