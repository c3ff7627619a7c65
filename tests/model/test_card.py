"""The page and the list of names beside a model."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from birdsonnx.artifacts import sha256
from birdsonnx.model import card
from tests.command import succeed, succeed_json
from tests.tiny import tiny_model


@pytest.fixture
def trained(workspace, training_config):
    """A checkpoint with its card."""
    Path("config.json").write_text(json.dumps(training_config(birdsonnx={"model_card": True})))
    assert "card saved/model_card.md" in succeed("train", "config.json")
    return Path("saved/model_checkpoint_3.onnx")


def test_the_last_checkpoint_has_a_card_and_its_labels(trained):
    assert Path("saved/labels.txt").read_text().splitlines() == ["ANT BIRD", "BEE-EATER", "COOT"]
    text = Path("saved/model_card.md").read_text()
    assert text.startswith("# model_checkpoint_3.onnx\n")
    assert sha256(trained) in text
    assert "- trained on 24 photos of 3 classes in data/train" in text
    assert "- tested on 9 photos of 3 classes in data/valid" in text
    last = succeed_json("info", trained)["history"][-1]
    assert f"after epoch 3: loss on its training photos {last['train_loss']:.4f}" in text
    assert f"accuracy on its test photos {last['test_accuracy']:.4f}" in text
    assert "Not stated" in text


def test_its_code_names_a_photo_as_predict_does(trained, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", Path("saved/model_card.md").read_text(), re.DOTALL)
    with Image.open("data/valid/COOT/000.png") as photo:
        photo.convert("RGB").resize((50, 40)).save("saved/photo.jpg")
    first = succeed("predict", "saved/photo.jpg", "--model", trained).splitlines()[0]
    _, name, probability = re.fullmatch(r"(\S+)\s+(.*\S)\s+(\S+)", first).groups()
    monkeypatch.chdir("saved")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    assert said.getvalue().rsplit(maxsplit=1)[0] == name
    assert float(said.getvalue().split()[-1]) == pytest.approx(float(probability), abs=1e-3)


def test_info_says_where_the_card_is_only_of_this_file(trained):
    assert succeed_json("info", trained)["card"] == "saved/model_card.md"
    trained.write_bytes(Path("model.onnx").read_bytes())
    assert succeed_json("info", trained)["card"] is None


def test_without_the_key_nothing_is_written(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config()))
    succeed("train", "config.json")
    assert not list(Path("saved").glob("*.md"))
    assert not list(Path("saved").glob("*.txt"))


def test_names_start_nothing_in_the_page():
    model = tiny_model(2, ["A", "B\nC"])
    Path("`x`<b>.onnx").write_bytes(model.serialized())
    page = card.write(model, Path("`x`<b>.onnx"), ["trained on <script>"]).read_text()
    assert page.startswith("# 'x'&lt;b>.onnx\n")
    assert "<script>" not in page
    assert Path("labels.txt").read_text() == "A\nB C\n"
