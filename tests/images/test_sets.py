"""Where the sets lie below one folder, and what is said where there are none."""

from pathlib import Path

import pytest

from birdsonnx.config.proposed import Sets
from birdsonnx.errors import DataError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.images.sets import find
from tests.tiny import make_class_folders


def folders(*names, per_class=1):
    for name in names:
        make_class_folders(Path(name), ("ANT", "BEE"), per_class=per_class)


@pytest.mark.parametrize(
    ("made", "test"),
    [
        (["valid"], "valid"),
        (["val"], "val"),
        (["validation"], "validation"),
        (["test"], "test"),
        (["test", "val"], "val"),
        (["test", "dev"], "dev"),
        (["Valid", "test"], "Valid"),
    ],
)
def test_a_training_folder_and_the_first_of_the_others(made, test):
    folders("data/train", *(f"data/{name}" for name in made))
    assert find(Path("data")) == Sets(Path("data/train"), Path("data") / test)


def test_without_any_other_nothing_is_tested():
    folders("data/Train")
    assert find(Path("data")) == Sets(Path("data/Train"))


def test_folders_further_down_become_tags():
    folders("data/garden/train", "data/garden/val", "data/pond/deep/train")
    assert find(Path("data")) == Sets(Path("data"), training_tag="train", test_tag="val")


def refusal(data: str) -> str:
    with pytest.raises(DataError) as refused:
        find(Path(data))
    return str(refused.value)


def test_class_folders_alone_are_to_be_split():
    folders("my birds")
    assert "no folder train in it, but class folders (ANT, BEE)" in refusal("my birds")
    assert "birdsonnx split 'my birds' 'my birds_sets' && birdsonnx train --data 'my birds_sets'" in (
        refusal("my birds")
    )


def test_one_set_is_sent_to_the_folder_above():
    folders("data/train", "data/valid")
    assert refusal("data/train").endswith("birdsonnx train --data data")
    assert refusal("data/valid").endswith("birdsonnx train --data data")


def test_a_folder_without_photos_a_file_and_nothing():
    Path("empty").mkdir()
    Path("file").touch()
    assert "expected empty/train/<class name>/<photo>.jpg" in refusal("empty")
    assert "this is a file" in refusal("file")
    assert "there is no such folder" in refusal("nothing")


# --- Classes that are called like sets ----------------------------------------------------------------------


def test_classes_may_be_called_like_sets():
    make_class_folders(Path("vehicles"), ("train", "test", "truck"), per_class=1)
    assert read_class_folders(Path("vehicles")).classes == ("test", "train", "truck")


def test_one_class_among_others_may_have_folders_of_its_own():
    make_class_folders(Path("vehicles"), ("car", "truck"), per_class=1)
    make_class_folders(Path("vehicles/train"), ("steam", "diesel"), per_class=1)
    assert read_class_folders(Path("vehicles")).classes == ("car", "train", "truck")
