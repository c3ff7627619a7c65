"""README's promises: its Python runs, its options, verbs and links exist."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.command import VERBS, succeed, succeed_json

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_in_it_runs_on_what_prediction_leaves(workspace, training_config, capsys):
    config = training_config(checkpoints={"load": "model.onnx", "save": "model_checkpoints_save/"})
    config["neural_network"]["num_epochs"] = 6
    Path("config.json").write_text(json.dumps(config))
    succeed("train", "config.json")
    shutil.copy("data/valid/COOT/000.png", "bird.jpg")
    another_program, predictions = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for photos in ("data/valid", "data/valid/COOT"):
        said = succeed_json("predict", photos)["predictions"]
        exec(predictions, {})
        expected = [f"{photo['name']} {photo['top'][0][0]}" for photo in said]
        assert capsys.readouterr().out.splitlines() == expected
        Path("predictions/output_1.h5").unlink()
    exec(another_program.replace("224, 224", "32, 32"), {})
    assert capsys.readouterr().out.startswith(said[0]["top"][0][0])


def test_every_option_in_it_exists():
    said = re.findall(r"birdsonnx (\w+)([^\n`]*)", README)
    for verb in VERBS:
        options = {option for name, rest in said if name == verb for option in re.findall(r"--[\w-]+", rest)}
        text = succeed(verb, "--help")
        assert all(option in text for option in options), (verb, options)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/architecture.md",
        "benchmarks/README.md",
    ],
)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_it_names_every_verb():
    assert all(f"`{verb}`" in README for verb in VERBS)
