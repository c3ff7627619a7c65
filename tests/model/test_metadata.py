"""What the file knows about itself: JSON under our prefix, there and back."""

import json

import pytest

from birdsonnx.config.transforms import CenterCrop, Resize
from birdsonnx.errors import ModelError
from birdsonnx.model.metadata import PREFIX, Metadata
from tests.tiny import tiny_model

FULL = tiny_model(3, ["A  B", "é 鳥", 'C"\\']).metadata.having(
    transforms=(Resize(40, 36), CenterCrop(32, 32)),
    history=(
        {"epoch": 1, "learning_rate": 0.1, "train_loss": 0.5},
        {"epoch": 2, "learning_rate": 0.1, "train_loss": 0.25, "test_loss": 0.3, "test_accuracy": 1.0},
    ),
    run={"run": 2, "epoch": 2},
)


@pytest.mark.parametrize("metadata", [tiny_model().metadata, FULL], ids=["fresh", "trained"])
def test_there_and_back(metadata):
    assert Metadata.from_props(metadata.as_props(), "m") == metadata


def test_other_programs_read_json():
    props = FULL.as_props()
    assert all(key.startswith("birdsonnx.") for key in props)
    content = {key.removeprefix(PREFIX): json.loads(value) for key, value in props.items()}
    assert content["classes"] == ["A  B", "é 鳥", 'C"\\']
    assert content["trainable"] == ["dense"]
    assert content["layers"][-1] == ["dense", "Dense", 3, True]
    assert content["run"] == {"run": 2, "epoch": 2}
    assert content["preprocessing"]["bgr"] is True


def test_what_is_not_known_is_not_written():
    assert {"birdsonnx.classes", "birdsonnx.transforms", "birdsonnx.run"}.isdisjoint(
        tiny_model().metadata.as_props()
    )


def test_equal_contents_give_equal_texts():
    turned = FULL.having(run={"epoch": 2, "run": 2})
    assert turned == FULL
    assert turned.as_props() == FULL.as_props()


def test_keys_of_others_are_no_matter():
    props = {**FULL.as_props(), "author": "somebody", "birdsonnx.of_a_later_version": "{"}
    assert Metadata.from_props(props, "m") == FULL


def test_a_file_of_others_is_told_how_to_become_ours():
    with pytest.raises(ModelError, match=r"^m\.onnx: .*not made by birdsonnx.*birdsonnx export"):
        Metadata.from_props({"author": "somebody"}, "m.onnx")


@pytest.mark.parametrize("key", ["layers", "parameters", "preprocessing", "transforms"])
@pytest.mark.parametrize("text", ['{"no": 1}', "{", "7", '[["a"]]'])
def test_damage_is_refused(key, text):
    with pytest.raises(ModelError, match=rf"m\.onnx: its metadata are damaged: birdsonnx\.{key}: "):
        Metadata.from_props({**FULL.as_props(), PREFIX + key: text}, "m.onnx")


@pytest.mark.parametrize("key", ["layers", "parameters", "trainable"])
def test_a_missing_part_is_refused(key):
    props = FULL.as_props()
    del props[PREFIX + key]
    with pytest.raises(ModelError, match=rf"^m\.onnx: its metadata are damaged: birdsonnx\.{key} is missing"):
        Metadata.from_props(props, "m.onnx")
