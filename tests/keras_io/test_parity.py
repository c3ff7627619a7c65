"""The comparison with Keras: what it finds, and when there is nothing to compare with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdsonnx.errors import InstallationError, ModelError
from birdsonnx.extras import how_to_install
from birdsonnx.keras_io import conversion, oracle, parity
from birdsonnx.keras_io.parity import NotChecked, Parity
from birdsonnx.keras_io.reading import KerasFile, read
from birdsonnx.keras_io.tf2onnx_road import keras_source
from tests.networks import keras_warns

pytestmark = keras_warns


@pytest.fixture
def file(network: Any) -> KerasFile:
    network.save("small.keras")
    return read(Path("small.keras"))


def load() -> Any:
    return oracle.model_of_file(Path("small.keras"))


def test_the_same_network_compares(file):
    model = conversion.convert(file, "small", "caffe").model
    found = parity.compare(model, file, load)
    assert isinstance(found, Parity)
    assert set(found.differences) == {1, 7}
    assert max(found.differences.values()) < found.tolerance == parity.TOLERANCE


def test_another_weight_does_not(file):
    path, held = next((path, held) for path, held in file.weights.items() if "kernel" in held)
    wrong = {**file.weights, path: {**held, "kernel": held["kernel"] * 1.1}}
    model = conversion.convert(replace(file, weights=wrong), "small", "caffe").model
    with pytest.raises(ModelError, match="parity check failed"):
        parity.compare(model, file, load)


def test_the_tolerance_follows_the_rounding_of_the_network(file, monkeypatch):
    """As if rounding counted a million times as much here as it does."""
    monkeypatch.setattr(parity, "ROUNDINGS", 1e7)
    model = conversion.convert(file, "small", "caffe").model
    found = parity.compare(model, file, load)
    assert isinstance(found, Parity)
    assert found.tolerance > parity.TOLERANCE
    path, held = next((path, held) for path, held in file.weights.items() if "kernel" in held)
    wrong = {**file.weights, path: {**held, "kernel": held["kernel"] * 1.001}}
    parity.compare(conversion.convert(replace(file, weights=wrong), "small", "caffe").model, file, load)
    monkeypatch.setattr(parity, "ROUNDINGS", 0)
    monkeypatch.setattr(parity, "TOLERANCE", 1e-6)
    with pytest.raises(ModelError, match="parity check failed"):
        parity.compare(conversion.convert(replace(file, weights=wrong), "small", "caffe").model, file, load)


def test_without_keras_nothing_is_compared(file, monkeypatch):
    def missing() -> None:
        raise InstallationError("no Keras")

    monkeypatch.setattr(parity, "import_keras", missing)
    model = conversion.convert(file, "small", "caffe").model
    found = parity.compare(model, file, load)
    assert found == NotChecked(f"Keras is not installed; for the comparison: {how_to_install('export')}")


def test_what_keras_cannot_read_is_not_compared(file):
    def refused() -> None:
        raise ModelError("x.h5: a layer\nthat Keras 3 has not")

    model = conversion.convert(file, "small", "caffe").model
    found = parity.compare(model, file, refused)
    assert "cannot read this network (x.h5: a layer that Keras 3 has not)" in str(found)


def test_a_network_for_one_batch_size_is_compared_at_that(keras):
    image = keras.Input(batch_shape=(6, 8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(keras.ops.reshape(x, (6, -1))))
    model.save("fixed.keras")
    file = read(Path("fixed.keras"))
    found = parity.compare(conversion.convert(file, "fixed", "none").model, file, lambda: model)
    assert isinstance(found, Parity)
    assert set(found.differences) == {6}


def test_messages_of_keras_have_no_colours():
    assert keras_source.one_line(ValueError("\x1b[1mInput 0\x1b[0m is\nwrong")) == "Input 0 is wrong"


def test_what_keras_reads_otherwise_is_not_compared(keras):
    """Its reader of `.h5` loses an axis that is a list: its answers are those of another network."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.LayerNormalization(axis=[1, 2], name="norm")(x)
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(x))
    model = keras.Model(image, scores)
    for variable in model.variables:
        variable.assign(np.random.default_rng(3).normal(0.5, 0.5, variable.shape))
    model.save("norm.keras")
    model.save("norm.h5")
    files = [read(Path(name)) for name in ("norm.keras", "norm.h5")]
    converted = [conversion.convert(each, "norm", "none").model for each in files]
    for each, its in zip(files, converted, strict=True):
        assert isinstance(parity.compare(its, each, lambda: model), Parity)
    as_misread = keras.layers.LayerNormalization(axis=-1, name="norm")
    misread = keras.Model(image, as_misread(model.get_layer("conv").output))
    found = parity.compare(converted[1], files[1], lambda: misread)
    assert "reads it otherwise than the file says (norm: axis [1, 2] became" in str(found)
