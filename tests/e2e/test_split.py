"""`birdsonnx split` as a user runs it: from species folders to a training."""

import json
from pathlib import Path

import pytest

from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.tiny import make_class_folders, tiny_model


@pytest.fixture
def photos():
    return make_class_folders(Path("my photos"), per_class=20)


def test_a_split_folder_trains(photos, training_config):
    text = succeed("split", "my photos", "data", fresh=True)
    assert text.splitlines() == [
        "3 classes: 42 train, 9 valid, 9 test (seed 0)",
        "wrote data (links to the photos in my photos, which must stay there)",
        "next:  birdsonnx train --data data",
    ]
    tiny_model(3).save(Path("model.onnx"))
    Path("config.json").write_text(json.dumps(training_config()))
    assert "42 photos of 3 classes" in succeed("train", "config.json")
    assert "photos 9" in succeed("evaluate", "data/test", "--model", "saved/model_checkpoint_3.onnx")


def test_json_and_an_unreadable_photo(photos):
    (photos / "COOT/007.png").write_bytes(b"nothing")
    done = birdsonnx(
        "split", photos, "data", "--copy", "--valid", "0.2", "--test", "0", "--seed", "5", "--json"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("birdsonnx: refused: my photos/COOT/007.png: not an image that can be read")
    found = json.loads(done.stdout)
    assert found["photos"] == {"train": 47, "valid": 12}
    assert found["classes"]["COOT"] == {"train": 15, "valid": 4}
    assert (found["copies"], found["seed"], found["lacking"], found["sequences"]) == (True, 5, {}, None)
    assert len(found["refused"]) == 1
    assert not any(path.is_symlink() for path in Path("data").rglob("*"))


def test_under_mpirun_one_rank_does_it(photos):
    assert succeed_json("split", photos, "data", ranks=2)["photos"] == {"train": 42, "valid": 9, "test": 9}


def test_what_is_refused(photos):
    assert "my photos/data: lies in my photos" in refused("split", photos, "my photos/data")
    assert "--valid 0.9 and --test 0.2: give shares" in refused(
        "split", photos, "data", "--valid=0.9", "--test=0.2"
    )
    assert "no photo says when it was taken" in refused("split", photos, "data", "--keep-sequences")
    succeed("split", photos, "data")
    assert "data: exists and is not empty; give a new folder" in refused("split", photos, "data")
    assert "data: is split already (data/train)" in refused("split", "data", "again")
    assert not Path("again").exists()
