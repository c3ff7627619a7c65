"""Nothing is overwritten in silence: the same command replaces its own results, another one gets the next
number, and says so."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.command import refused, succeed, succeed_json
from tests.tiny import make_class_folders, tiny_model

COMMAND = ("predict", "data/valid", "--model", "model.onnx")


@pytest.fixture
def config(workspace, training_config) -> str:
    sections = {"num_epochs": 1, "checkpoints": {"load": "model.onnx", "save": "saved"}}
    Path("config.json").write_text(json.dumps(training_config(**sections)))
    return "config.json"


def names(folder: str = "predictions") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def photos(number: int) -> int:
    with h5py.File(f"predictions/output_{number}.h5") as file:
        return int(file.attrs["photos"])


@pytest.mark.parametrize("ranks", [1, 2])
def test_predictions_of_another_command_get_the_next_number(workspace, ranks):
    assert "replacing" not in succeed(*COMMAND, ranks=ranks)
    text = succeed(*COMMAND, ranks=ranks)
    assert "replacing predictions/output_1.h5: it is of the same command\n" in text
    text = succeed("predict", "data/valid/COOT", "--model", "model.onnx", ranks=ranks)
    assert (
        "writing predictions/output_2.h5, since predictions/output_1.h5 is of another command "
        "(birdsonnx predict data/valid --model model.onnx); --overwrite replaces it\n"
    ) in text
    assert "-> predictions/output_2.h5" in text
    assert (photos(1), photos(2)) == (9, 3)
    same = ("predict", "--model", "model.onnx", "--threads", "1", "--top-k", "2", "data/valid/COOT", "--json")
    assert json.loads(succeed(*same, ranks=ranks))["output"] == "predictions/output_2.h5"
    assert names() == ["output_1.h5", "output_2.h5"]
    text = succeed("predict", "data/valid/COOT", "--model", "model.onnx", "--overwrite", ranks=ranks)
    assert "replacing predictions/output_1.h5: predictions/output_1.h5 is of another command (" in text
    assert (photos(1), photos(2)) == (3, 3)


def test_files_that_do_not_say_whose_they_are_are_anothers(workspace):
    succeed(*COMMAND)
    with h5py.File("predictions/output_1.h5", "r+") as file:
        del file.attrs["command"]
    Path("predictions/output_2.h5").write_text("no HDF5")
    Path("predictions/output_3.h5").mkdir()
    text = succeed(*COMMAND)
    assert "output_4.h5, since predictions/output_1.h5 does not say which command made it" in text
    assert names() == [f"output_{number}.h5" for number in (1, 2, 3, 4)]


def test_the_same_words_elsewhere_are_another_command(workspace):
    succeed(*COMMAND)
    Path("elsewhere").mkdir()
    make_class_folders(Path("elsewhere/data/valid"), per_class=1)
    tiny_model(3).save(Path("elsewhere/model.onnx"))
    result = succeed_json(*COMMAND, "-o", "../predictions", cwd=Path("elsewhere"))
    assert result["output"] == "../predictions/output_2.h5"
    assert succeed_json(*COMMAND)["output"] == "predictions/output_1.h5"
    whole = workspace.rename(workspace.with_name(f"{workspace.name} moved"))
    try:
        assert succeed_json(*COMMAND, cwd=whole)["output"] == "predictions/output_1.h5"
    finally:
        whole.rename(workspace)


def test_two_at_once_get_two_numbers(workspace):
    make_class_folders(Path("data/many"), per_class=150)
    words = [sys.executable, "-m", "birdsonnx", "predict", "data/many", "--model", "model.onnx", "--json"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [json.loads(process.communicate()[0])["output"] for process in running]
    assert set(outputs) == {f"predictions/{name}" for name in names()}
    for name in names():
        with h5py.File(f"predictions/{name}") as file:
            assert file.attrs["photos"] == 450


def test_other_words_are_another_command(config):
    succeed("train", config)
    first = Path("out_train.txt").read_bytes()
    text = succeed("train", config, "--set", "optimizer.learning_rate=0.5")
    assert (
        "writing out_2_train.txt and out_2_test.txt, since out_train.txt is of another command "
        "(birdsonnx train config.json); --overwrite replaces it\n"
    ) in text
    assert "saved: model_checkpoint_1.onnx of an earlier training will be replaced" in text
    assert Path("out_train.txt").read_bytes() == first
    for name in ("out", "out_2"):
        assert np.loadtxt(f"{name}_train.txt").shape == (4, 5)
        assert np.loadtxt(f"{name}_test.txt", ndmin=2).shape == (1, 4)
    Path("other.json").write_bytes(Path(config).read_bytes())
    text = succeed("train", "other.json", "--overwrite")
    assert "replacing out_train.txt and out_test.txt: out_train.txt is of another command (" in text


def test_the_same_words_are_the_same_command_whatever_the_config_says_by_now(config):
    """Who edits a config and trains again expects the logs where they were."""
    succeed("train", config)
    whole = json.loads(Path(config).read_text())
    whole["neural_network"]["num_epochs"] = 2
    Path(config).write_text(json.dumps(whole))
    assert "replacing out_train.txt and out_test.txt: they are of the same command\n" in succeed(
        "train", config
    )
    assert np.loadtxt("out_train.txt").shape == (8, 5)
    assert not Path("out_2_train.txt").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_run_goes_on_in_its_own_logs(config, ranks):
    Path("out_train.txt").write_text("of somebody else\n")
    succeed("train", config, ranks=ranks)
    assert np.loadtxt("out_2_train.txt").shape == (4, 5)
    text = succeed("train", config, "--resume", "--set", "num_epochs=3", ranks=ranks)
    assert "writing" not in text
    assert np.loadtxt("out_2_train.txt").shape == (12, 5)
    assert np.loadtxt("out_2_test.txt").shape == (3, 4)
    assert not Path("out_3_train.txt").exists()
    assert Path("out_train.txt").read_text() == "of somebody else\n"


def test_epochs_predictions_over_another_commands_are_said(config):
    succeed(*COMMAND, "-o", "kept")
    words = ("train", config, "--set", "data.test_output_path=kept")
    said = "replacing kept/output_1.h5: kept/output_1.h5 is of another command (birdsonnx predict data/valid"
    assert said in succeed(*words)
    assert "replacing kept" not in succeed(*words)


def test_a_plot_does_not_replace_a_picture_of_another_kind(config):
    pytest.importorskip("matplotlib")
    succeed("train", config)
    Image.new("RGB", (8, 8)).save("out.png")
    text = succeed("plot", "out.txt")
    assert "writing out_2.png, since out.png does not say which command made it" in text
    assert "wrote out_2.png\n" in text
    assert "replacing out_2.png: it is of the same command\nreplaced out_2.png\n" in succeed(
        "plot", "out.txt"
    )
    assert "replaced out.png\n" in succeed("plot", "out.txt", "--overwrite")
    with Image.open("out.png") as picture:
        assert json.loads(picture.text["birdsonnx.command"])["command"] == "birdsonnx plot out.txt"
    assert "wrote named.png\n" in succeed("plot", "out.txt", "-o", "named.png")
    assert "replaced named.png\n" in succeed("plot", "out.txt", "-o", "named.png")


def test_named_files_are_replaced_and_it_is_said(workspace):
    for done in ("wrote", "replaced"):
        assert f"{done} named.csv\n" in succeed(*COMMAND, "--csv", "named.csv")
        text = succeed("evaluate", "data/valid", "--model", "model.onnx", "--csv", "table.csv")
        assert f"{done} table.csv\n{done} table_mistakes.csv\n" in text


PREDICT = ("predict", "data/valid", "--model", "model.onnx")
EVALUATE = ("evaluate", "data/valid", "--model", "model.onnx")
CALIBRATE = ("calibrate", "model.onnx", "--validate", "data/valid")
PHOTO = "data/valid/COOT/000.png"


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((*PREDICT, "--csv", PHOTO), f"--csv {PHOTO}: is one of the photos"),
        ((*PREDICT, "--csv", "./data/../" + PHOTO), "is one of the photos"),
        ((*PREDICT, "--results", PHOTO, "--overwrite"), f"--results {PHOTO}: is one of the photos"),
        ((*PREDICT, "--csv", "model.onnx"), "--csv model.onnx: is the file of --model too"),
        ((*PREDICT, "--csv", "here.txt", "--species", "here.txt"), "is the file of --species too"),
        (
            (*PREDICT, "--csv", "taxa.csv", "--taxonomy", "taxa.csv", "--threshold", "1"),
            "is the file of --taxonomy too",
        ),
        ((*PREDICT, "--results", "model.onnx", "--overwrite"), "is the file of --model too"),
        ((*PREDICT, "--csv", "predictions/output_1.h5"), "is the file of --output too"),
        ((*EVALUATE, "--csv", PHOTO), f"--csv {PHOTO}: is one of the photos"),
        ((*EVALUATE, "--csv", "here.txt", "--species", "here.txt"), "is the file of --species too"),
        ((*EVALUATE, "--csv", "model.onnx"), "is the file of --model too"),
        ((*CALIBRATE, "-o", PHOTO), f"--output {PHOTO}: is one of the photos"),
        ((*CALIBRATE, "-o", "x.png", "--plot", "x.png"), "is the file of --output too"),
    ],
)
def test_no_result_takes_the_place_of_what_it_is_made_of(workspace, words, line, ranks):
    if ranks == 2 and words[-1] != PHOTO:
        pytest.skip("one of each verb is enough under mpirun")
    Path("here.txt").write_text("COOT\n")
    Path("taxa.csv").write_text("class,genus\nCOOT,a\n")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert line in refused(*words, ranks=ranks)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("option", ["--csv", "--results"])
def test_a_new_file_among_the_photos_is_none_of_them(workspace, option):
    succeed(*PREDICT, option, "data/valid/COOT/new.txt")
    succeed(*PREDICT, option, "data/valid/COOT/new.txt")


def test_predictions_of_a_config_say_so_and_are_of_the_same_command(config):
    named = ("predict", "--config", config, "data/valid", "-o", "kept")
    succeed(*named, "--model", "model.onnx")
    with h5py.File("kept/output_1.h5") as file:
        assert "--config config.json" in file.attrs["command"]
    Path(config).write_text(Path(config).read_text().replace('"num_epochs": 1', '"num_epochs": 2'))
    said = succeed(*named, "--model", "model.onnx")
    assert "replacing kept/output_1.h5: it is of the same command" in said
