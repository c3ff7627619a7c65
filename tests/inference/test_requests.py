"""A prediction's request from a config, and what the command line makes of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from birdsonnx.config.reading import parse
from birdsonnx.config.transforms import Resize
from birdsonnx.errors import ConfigError
from birdsonnx.inference.requests import Request


def request(inputs=(), **sections) -> Request:
    return Request.from_config(parse(json.dumps({"neural_network": sections}), "config.json"), inputs)


def test_what_a_config_says():
    data = {
        "test_input_path": "data/test",
        "test_tag": "test",
        "test_output_path": "out/",
        "grayscale": True,
        "transforms": [{"resize": [32, 24]}],
    }
    made = request(data=data, birdsonnx={"threads": 3})
    assert made.settings is not None
    assert replace(made, settings=None) == Request(
        ["data/test"],
        output=Path("out"),
        tag="test",
        transforms=(Resize(32, 24),),
        grayscale=True,
        threads=3,
    )
    assert not made.replaces_preprocessing


def test_a_config_that_says_little():
    made = request(data={"test_input_path": "data"})
    assert replace(made, settings=None) == Request(["data"])


def test_inputs_replace_the_configs_and_its_tag():
    data = {"test_input_path": "data", "test_tag": "test"}
    made = request(["a.jpg"], data=data)
    assert (made.inputs, made.tag) == (["a.jpg"], None)
    assert request(["a.jpg"]).inputs == ["a.jpg"]


def test_nothing_to_predict():
    with pytest.raises(ConfigError, match="nothing to do"):
        request(data={})


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        (None, False),
        ([], False),
        ([{"resize": [8, 8]}], False),
        ([{"resize": [8, 8]}, {"normalize": {"mean": 0, "std": 1}}], True),
    ],
)
def test_a_normalize_replaces_the_preprocessing(transforms, expected):
    data = {"test_input_path": "data", **({} if transforms is None else {"transforms": transforms})}
    assert request(data=data).replaces_preprocessing == expected
