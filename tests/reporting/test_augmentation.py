"""The preview of augmented photos: the very pixels of training, of photos from all over the folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from birdsonnx.config.reading import parse
from birdsonnx.config.settings import Settings
from birdsonnx.errors import ConfigError, ImageError, ModelError
from birdsonnx.images.decoding import decoder
from birdsonnx.images.folders import read_class_folders
from birdsonnx.images.transforms import chance_of
from birdsonnx.reporting.augmentation import Preview, preview
from tests.digits import lenet
from tests.tiny import make_class_folders, tiny_model

STEPS = [{"jitter_crop": 0.3}, {"resize": [20, 16]}, {"random_rotate": 20}, {"random_horizontal_flip": 0.5}]


def settings_of(
    load: str | None = None,
    transforms: Any = STEPS,
    folder: str | None = "train",
    layers: Any = None,
    epochs: int = 6,
) -> Settings:
    network: dict[str, Any] = {"data": {}, "birdsonnx": {"seed": 7}, "layers": layers, "num_epochs": epochs}
    if transforms is not None:
        network["data"]["transforms"] = transforms
    if folder is not None:
        network["data"]["input_path"] = folder
    if load is not None:
        network["checkpoints"] = {"load": load}
    return parse(json.dumps({"neural_network": network}), "config.json")


def shown(**options: Any) -> Preview:
    return preview(settings_of(**options), lambda line: None)


def folders(classes: int, per_class: int = 8) -> None:
    make_class_folders(Path("train"), [f"BIRD {number:02}" for number in range(classes)], per_class)


def test_it_shows_what_training_sees():
    folders(3)
    found = shown()
    photos = read_class_folders(Path("train")).photos
    indices = {photo.name: index for index, photo in enumerate(photos)}
    decode = decoder(16, 20, 3, settings_of().data.transforms)
    assert len(found.rows) == 6
    assert found.epochs == (1, 2, 3, 4, 5)
    for row in found.rows:
        index = indices[row.name]
        plain = Image.open(Path("train") / row.name).resize((20, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(row.evaluated, np.asarray(plain))
        for epoch, pixels in zip(found.epochs, row.trained, strict=True):
            np.testing.assert_array_equal(pixels, decode(photos[index].path, chance_of(7, epoch, index)))
    assert found.note.startswith("seed 7: jitter_crop 0.3, resize [20, 16], random_rotate 20")


@pytest.mark.parametrize(
    ("classes", "per_class", "expected"),
    [
        (12, 8, [f"BIRD {number:02}/000.png" for number in (0, 2, 4, 6, 8, 10)]),
        (6, 1, [f"BIRD {number:02}/000.png" for number in range(6)]),
        (3, 8, [f"BIRD {number:02}/{photo}.png" for number in range(3) for photo in ("000", "004")]),
        (3, 1, [f"BIRD {number:02}/000.png" for number in range(3)]),
        (1, 60, [f"BIRD 00/{photo:03}.png" for photo in range(0, 60, 10)]),
        (1, 2, ["BIRD 00/000.png", "BIRD 00/001.png"]),
    ],
)
def test_photos_come_from_all_over_the_folder(classes, per_class, expected):
    folders(classes, per_class)
    assert [row.name for row in shown().rows] == expected


@pytest.mark.parametrize("transforms", [None, [], [{"rotate": 45}], [{"resize": [32, 32]}]])
def test_without_random_transforms_it_says_so(transforms):
    folders(2)
    tiny_model(2).save(Path("model.onnx"))
    found = shown(load="model.onnx", transforms=transforms)
    assert "no transform is random" in found.note
    assert found.epochs == ()
    assert all(row.trained == () for row in found.rows)


def test_no_more_epochs_than_the_config_has():
    folders(2)
    found = shown(epochs=2)
    assert found.epochs == (1, 2)
    assert all(len(row.trained) == 2 for row in found.rows)


def test_the_size_is_the_models_else_what_the_transforms_end_at():
    folders(2)
    tiny_model(2).save(Path("model.onnx"))
    for load in ("model.onnx", "model.pt"):
        assert shown(load=load, transforms=[{"random_zoom": 0.1}]).rows[0].evaluated.shape == (32, 32, 3)
    for load in (None, "network.h5", "network.keras"):
        assert shown(load=load).rows[0].evaluated.shape == (16, 20, 3)
        for transforms in (None, [], [{"random_zoom": 0.1}]):
            with pytest.raises(ConfigError, match="input size is not known"):
                shown(load=load, transforms=transforms)
    with pytest.raises(ConfigError, match=r"end at 20 x 16 pixels .* takes 32 x 32"):
        shown(load="model.onnx")
    with pytest.raises(ModelError, match="there is no such model"):
        shown(load="nothing.onnx")


def test_layers_say_the_size_and_the_channels():
    """With or without a model beside: it is their network that is trained."""
    folders(2)
    tiny_model(2).save(Path("model.onnx"))
    for load in (None, "model.onnx"):
        found = shown(load=load, transforms=[{"random_zoom": 0.1}, {"resize": [28, 28]}], layers=lenet())
        assert found.rows[0].evaluated.shape == (28, 28, 1)
        with pytest.raises(ConfigError, match=r"end at 20 x 16 pixels .* takes 28 x 28"):
            shown(load=load, layers=lenet())
    assert shown(layers="absent.json").rows[0].evaluated.shape == (16, 20, 3)


def test_what_cannot_be_shown_is_refused():
    folders(2)
    with pytest.raises(ConfigError, match=r"data\.input_path: this key is required"):
        shown(folder=None)
    Path("train/BIRD 00/000.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"BIRD 00/000\.png: not an image"):
        shown()
