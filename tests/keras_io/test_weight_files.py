"""Weights are found by the names that Keras gives to its downloads."""

import json
from pathlib import Path

import pytest

from birdsonnx.errors import ConfigError
from birdsonnx.keras_io.architectures import DEFAULT_SIZES, descriptions
from birdsonnx.keras_io.architectures.weight_files import network_of, of_networks


def test_the_name_of_each_download_says_its_network():
    wrong = {}
    seen = set()
    for line in descriptions.lines():
        described = json.loads(line)
        for file in described["files"].values():
            found = network_of(Path(file[0]))
            if found != described["name"]:
                wrong[file[0]] = found
        seen.add(described["name"])
    assert not wrong
    assert seen == set(DEFAULT_SIZES)


@pytest.mark.parametrize("name", ["resnet50.h5", "resnet50_notop.onnx", "resnet51x_top.h5", "notop.h5"])
def test_other_files_are_nobodys(name):
    assert network_of(Path(name)) is None


def test_a_folder_a_pattern_and_a_file():
    folder = Path("weights")
    folder.mkdir()
    for name in ("resnet50_mine_notop.h5", "ResNet50V2-no-top.h5", "mobilenet_notop.h5", "notes.txt"):
        (folder / name).touch()
    expected = {"ResNet50": folder / "resnet50_mine_notop.h5", "MobileNet": folder / "mobilenet_notop.h5"}
    assert of_networks("weights", list(expected)) == expected
    assert of_networks("weights/*_notop.h5", list(expected)) == expected
    assert of_networks("weights/notes.txt", ["VGG16"]) == {"VGG16": folder / "notes.txt"}
    with pytest.raises(ConfigError, match=r"weights: no file with weights of VGG16; call it vgg16_notop\.h5"):
        of_networks("weights", ["ResNet50", "VGG16"])
    with pytest.raises(ConfigError, match="no file with weights of MobileNet"):
        of_networks("weights/resnet50_mine_notop.h5", list(expected))
    (folder / "resnet50_other_notop.h5").touch()
    with pytest.raises(ConfigError, match="2 files with weights of ResNet50"):
        of_networks("weights", ["ResNet50"])
    with pytest.raises(ConfigError, match=r"neither imagenet nor none.*did you mean 'weights'"):
        of_networks("weigths", ["ResNet50"])
