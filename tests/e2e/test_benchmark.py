"""`birdsonnx benchmark` as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.command import refused, succeed, succeed_json

SHORT = ("--seconds", "1", "--batch-sizes", "2", "--threads", "1")


def test_all_of_it(workspace):
    pytest.importorskip("matplotlib")
    words = ("benchmark", "model.onnx", *SHORT, "--plot", "speed.png", "-o", "speed.json")
    found = succeed_json(*words, fresh=True)
    assert found == json.loads(Path("speed.json").read_text())
    assert Path("speed.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (found["model"], found["budget_s"], found["classes"]) == ("model.onnx", 1, 3)
    assert 0 < found["load_s"] < found["first_prediction_s"] < 60
    [bare] = found["bare"]
    assert (bare["streams"], bare["threads_per_run"], bare["batch"]) == (1, 1, 2)
    assert found["environment"]["cores"] >= 1
    assert {"cpu", "runtime", "packages", "platform"} <= set(found["environment"])


def test_the_newest_checkpoint_and_photos_of_ones_own(workspace, training_config):
    Path("config.json").write_text(
        json.dumps(training_config(checkpoints={"load": "model.onnx", "save": "model_checkpoints_save/"}))
    )
    succeed("train", "config.json")
    text = succeed("benchmark", "--data", "data/valid", *SHORT)
    assert "measuring model_checkpoints_save/model_checkpoint_3.onnx for about 1 s" in text
    assert "9 of 9 in data/valid" in text
    assert "1 stream x 1 thread" in text


def test_a_damaged_photo_is_listed_and_makes_the_exit_code_1(workspace):
    Path("data/valid/COOT/001.png").write_text("no picture")
    line = refused("benchmark", "model.onnx", "--data", "data/valid", *SHORT, code=1)
    assert line.startswith("birdsonnx: refused: data/valid/COOT/001.png: not an image")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seconds", "0"], "--seconds '0': give a number above 0"),
        (["--seconds", "abc"], "--seconds 'abc'"),
        (["--seconds", "nan"], "--seconds 'nan'"),
        (["--seconds", "inf"], "--seconds 'inf'"),
        (["--batch-sizes", ""], "--batch-sizes '': give whole numbers from 1 to 1024"),
        (["--batch-sizes", "1,,4"], "--batch-sizes ''"),
        (["--batch-sizes", "1,0"], "--batch-sizes '0'"),
        (["--batch-sizes", "4,many"], "--batch-sizes 'many'"),
        (["--batch-sizes", "2000"], "--batch-sizes '2000'"),
        (["--threads", "0"], "--threads '0'"),
        (["--threads", "1", "--threads", "x"], "--threads 'x'"),
        (["--threads", "100000"], "the cores of this process"),
        (["--data", "nothing"], "nothing: no such file or folder"),
        (["--plot", "speed.txt"], "speed.txt: a plot is a .png"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_2(workspace, words, expected):
    assert expected in refused("benchmark", "model.onnx", *words)
