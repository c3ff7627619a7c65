"""Pipes, sockets, devices and links to them where a file is asked for: one line at once, and no waiting."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from birdsonnx.artifacts import regular_files
from birdsonnx.model.model_file import BirdModel
from birdsonnx.training import checkpoints
from tests.tiny import make_class_folders, tiny_model

LIMIT_S = 20
"""A pipe without a writer would be waited for until then."""


@pytest.fixture(autouse=True)
def in_time():
    def over(*_):
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo("pipe")
    path.symlink_to(Path("pipe").absolute())


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


KINDS = [pipe, link_to_pipe, endless, listening, Path.mkdir]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    "words",
    [
        ("predict", "photos", "--model", "odd.onnx"),
        ("info", "odd.onnx"),
        ("quantize", "odd.onnx", "--calibrate", "photos"),
        ("benchmark", "odd.onnx"),
        ("evaluate", "photos", "--model", "odd.onnx"),
        ("train", "odd.json"),
        ("predict", "--config", "odd.json"),
        ("predict", "photos", "--detections", "odd.json"),
        ("plot", "--augmented", "odd.json", "-o", "out.png"),
        ("evaluate", "odd.h5"),
        ("evaluate", "predictions/output_1.h5", "--labels", "odd.csv"),
        ("export", "odd.h5", "-o", "out.onnx"),
        ("export", "odd.keras", "-o", "out.onnx"),
        ("export", "--layers", "odd.json", "--weights", "none", "-o", "out.onnx"),
        ("export", "--weights", "odd.h5", "-o", "out.onnx"),
        ("export", "--weights", "none", "--labels", "odd.txt", "-o", "out.onnx"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(words, make, run):
    make_class_folders(Path("photos"), per_class=1)
    if "predictions/output_1.h5" in words:
        model, classes = tiny_model(3), tuple(sorted(path.name for path in Path("photos").iterdir()))
        BirdModel(model.proto, model.metadata.having(classes=classes), "").save(Path("model.onnx"))
        assert run("predict", "photos", "--model", "model.onnx").code == 0
    name = next(word for word in words if word.startswith("odd."))
    make(Path(name))
    assert name in run(*words).refusal
    assert not list(Path().glob("out.*"))


@pytest.mark.parametrize("make", KINDS)
def test_a_photo_that_is_none_is_refused_and_the_others_are_named(make, run):
    make_class_folders(Path("photos"), per_class=1)
    tiny_model(3).save(Path("model.onnx"))
    [folder, *_] = sorted(Path("photos").iterdir())
    make(folder / "odd.jpg")
    done = run("predict", "photos", "--model", "model.onnx")
    is_folder = make is Path.mkdir
    assert done.code == (0 if is_folder else 1), done
    assert is_folder or "odd.jpg" in done.err


@pytest.mark.parametrize("make", KINDS)
def test_checkpoints_that_are_none_are_passed_over(make, run):
    make_class_folders(Path("photos"), per_class=1)
    folder = Path("model_checkpoints_save")
    folder.mkdir()
    make(folder / "model_checkpoint_9.onnx")
    assert "no model_checkpoint_*.onnx there" in run("predict", "photos").refusal
    model = tiny_model(3)
    metadata = model.metadata.having(run={"run": 1, "epoch": 1})
    BirdModel(model.proto, metadata, "").save(folder / "model_checkpoint_1.onnx")
    assert run("predict", "photos").code == 0


@pytest.mark.parametrize("make", KINDS)
def test_states_and_caches_that_are_none_are_passed_over(make, run):
    """They are made again, or one line says why not."""
    make_class_folders(Path("train"), per_class=4)
    tiny_model(3).save(Path("model.onnx"))
    content = {
        "num_epochs": 1,
        "outfile": "out.txt",
        "checkpoints": {"load": "model.onnx", "save": "saved"},
        "data": {"input_path": "train", "batch_size": 6},
        "birdsonnx": {"cache": "cache", "feature_precision": "int8"},
    }
    Path("config.json").write_text(json.dumps({"neural_network": content}))
    assert run("train", "config.json").code == 0
    kept = sorted(path for path in Path("cache").iterdir() if path.suffix != ".lock")
    assert {path.name.partition("-")[0] for path in kept} >= {"photos", "features", "backbone"}
    for path in kept:
        path.unlink()
        Path("pipe").unlink(missing_ok=True)
        make(path)
        done = run("train", "config.json")
        if make is Path.mkdir:
            assert done.code in (0, 2)
            assert len(done.err.splitlines()) <= 1, done
            path.rmdir()
        else:
            assert done.code == 0, done
    state = checkpoints.state_path(Path("saved/model_checkpoint_1.onnx"))
    state.unlink()
    Path("pipe").unlink(missing_ok=True)
    make(state)
    assert "no checkpoint to resume from" in run("train", "config.json", "--resume").refusal


def test_a_file_too_large_to_be_read_whole_is_refused_unread(run):
    with Path("large.onnx").open("wb") as file:
        file.truncate(regular_files.LARGEST + 1)  # takes no room
    with Path("large.json").open("wb") as file:
        file.truncate(2**30)
    make_class_folders(Path("photos"), per_class=1)
    assert "larger than" in run("predict", "photos", "--model", "large.onnx").refusal
    assert "larger than" in run("train", "large.json").refusal


def test_what_a_refusal_says_of_it():
    os.mkfifo("pipe")
    with pytest.raises(OSError, match="no regular file, but a folder, a pipe or a device"):
        regular_files.read_bytes(Path("pipe"))
