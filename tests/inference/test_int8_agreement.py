"""Int8 against float32 on the photos it was calibrated with."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.images.decoding import decoder
from birdsonnx.images.inputs import collect
from birdsonnx.inference import quantizing
from birdsonnx.inference.engines import fastest
from birdsonnx.inference.int8_agreement import settled
from birdsonnx.inference.quantizing import quantized_model
from birdsonnx.model.edits import copy_of
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes import logit_shift
from birdsonnx.passes.logit_shift import shift_logits
from tests.tiny import SIZE, make_class_folders, tiny_model


@pytest.fixture
def photos():
    make_class_folders(Path("photos"), per_class=10)
    return collect(["photos"])


def plain(model: BirdModel, photos) -> np.ndarray:
    """Log-probabilities by a plain loop."""
    read = decoder(SIZE, SIZE, 3, None)
    session = onnxruntime.InferenceSession(fastest(model.serialized()), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": read(photo.path)[None]})[0] for photo in photos])


def spoiled(model: BirdModel, shift: list[float]) -> BirdModel:
    """An int8 model whose scores are off by a constant."""
    proto = copy_of(model.proto)
    assert shift_logits(proto, np.array(shift))
    return BirdModel(proto, model.metadata, model.where)


def test_the_agreement_is_that_of_a_plain_loop(photos):
    model = tiny_model(3)
    made = quantized_model(model, photos, "minmax", 2, "0" * 64)
    same = plain(model, photos).argmax(1) == plain(made, photos).argmax(1)
    assert made.metadata.quantization["agreement"] == same.mean()


def test_a_constant_error_is_taken_out(photos):
    model = tiny_model(3)
    made = quantized_model(model, photos, "minmax", 2, "0" * 64)
    wrong = spoiled(made, [0.5, -0.4, 0.1])
    mended = settled(model, wrong, photos, 2, 0)
    expected = plain(model, photos)
    error, was = (np.abs((plain(each, photos) - expected).mean(axis=0)) for each in (mended, wrong))
    assert was.max() > 0.2
    assert error.max() < 0.05


def test_a_form_that_does_not_agree_is_refused(photos, monkeypatch):
    model = tiny_model(3)
    made = quantized_model(model, photos, "minmax", 2, "0" * 64)
    wrong = spoiled(made, [9, -9, 0])
    monkeypatch.setattr("birdsonnx.inference.int8_agreement.shift_logits", lambda *_: False)
    with pytest.raises(ModelError, match=r"int8 names \d+ of the 30 calibration photos otherwise"):
        settled(model, wrong, photos, 2, 0.9)
    differ = (plain(wrong, photos).argmax(1) != plain(model, photos).argmax(1)).mean()
    found = settled(model, wrong, photos, 2, 1 - differ)
    assert found.metadata.quantization["agreement"] == pytest.approx(1 - differ)


def test_of_few_photos_one_may_differ(photos, monkeypatch):
    model = tiny_model(3)
    monkeypatch.setattr(quantizing.int8_agreement, "_agreed", lambda *_: 2)
    assert settled(
        model, quantized_model(model, photos, "minmax", 1, "0" * 64, min_agreement=0), photos[:3], 1, 0.9
    )
    with pytest.raises(ModelError):
        settled(
            model, quantized_model(model, photos, "minmax", 1, "0" * 64, min_agreement=0), photos[:4], 1, 0.9
        )


def test_logits_without_an_integer_bias_are_left(photos):
    assert not shift_logits(copy_of(tiny_model(3).proto), np.zeros(3))
    made = quantized_model(tiny_model(3), photos, "minmax", 1, "0" * 64)
    assert not logit_shift.shift_logits(copy_of(made.proto), np.zeros(4))
