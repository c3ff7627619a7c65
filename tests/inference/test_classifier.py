"""A model opened for prediction: its forms answer alike, and what is no model of ours is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from birdsonnx import artifacts
from birdsonnx.config.transforms import CenterCrop, Resize
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.inference import forms
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.engines import fastest
from birdsonnx.inference.naming import name_photos
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.quantization import quantize
from birdsonnx.runtime.ranks import Ranks
from tests.inference.conftest import COUNT, broken
from tests.tiny import SIZE, residual_model, tiny_model

SMALL = 14
"""Pixels, which the stem halves."""


@pytest.mark.parametrize("count", [1, 2, 5, COUNT])
@pytest.mark.parametrize("per_run", [None, 1, 2, 50])
def test_log_probs_equal_a_plain_loop(photos, count, per_run):
    photos = [*photos[:1], broken("bad.png"), *photos[1:count]]
    content = residual_model(3, size=SMALL).serialized()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    classifier = open_classifier(content, "model", len(photos), 2, per_run=per_run)
    for named in name_photos(classifier, photos, Ranks()):
        if named.photo.name == "bad.png":
            assert named.log_probs is None
            continue
        with Image.open(named.photo.path) as image:
            small = image.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BILINEAR)
        [expected] = session.run(None, {"images": np.asarray(small)[None]})[0]
        np.testing.assert_allclose(named.log_probs, expected, atol=1e-5)


def test_the_model_is_known_by_its_file_whatever_becomes_of_it_in_memory(photos):
    model = residual_model(3, size=SMALL)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SMALL, SMALL, 3), np.uint8)
    proto = quantize(model.proto, model.metadata.preprocessing, [pixels], "minmax")
    int8 = BirdModel(proto, model.metadata.having(quantization={"photos": 8}), "int8").serialized()
    assert open_classifier(int8, "model", forms.MANY, 2).sha256 == artifacts.sha256_of(int8)


@pytest.mark.parametrize(
    "content", [b"no model", b"QuantizeLinear", tiny_model().proto.SerializeToString()[:-50]]
)
def test_foreign_bytes_are_not_made_over(content):
    assert fastest(content, amx=True) == content


def test_transforms_of_the_training_apply_unless_others_are_given(photos):
    model = tiny_model(3)
    trained_with = (Resize(40, 44), CenterCrop(SIZE, SIZE))
    metadata = model.metadata.having(transforms=trained_with)
    content = BirdModel(model.proto, metadata, "model").serialized()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with Image.open(photos[0].path) as image:
        resized = np.asarray(image.resize((40, 44), Image.Resampling.BILINEAR))
        cropped = np.asarray(image)[8:40, 8:40]
    for given, pixels in ((None, resized[6:38, 4:36]), ((CenterCrop(SIZE, SIZE),), cropped)):
        classifier = open_classifier(content, "model", 1, 1, given)
        [named] = name_photos(classifier, photos[:1], Ranks())
        [oracle] = session.run(None, {"images": pixels[None]})[0]
        np.testing.assert_allclose(named.log_probs, oracle, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("model.onnx", lambda path: None, "there is no such model"),
        ("model.h5", lambda path: path.touch(), "the file is empty"),
        ("model.onnx", lambda path: path.write_bytes(b"no model"), "not a complete ONNX file"),
        (
            "model.onnx",
            lambda path: path.write_bytes(tiny_model().serialized()[:-50]),
            "not a complete ONNX file",
        ),
        ("model.onnx", lambda path: onnx.save(tiny_model().proto, path), "not made by birdsonnx"),
    ],
)
def test_models_that_are_refused(name, make, said):
    make(Path(name))
    with pytest.raises(ModelError) as caught:
        open_classifier(Path(name), name, 1, 1)
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)


def test_transforms_of_another_size_are_refused(folder):
    with pytest.raises(ConfigError, match="but the network takes 32 x 32"):
        open_classifier(folder / "model.onnx", "model.onnx", 1, 1, (Resize(33, 32),))
