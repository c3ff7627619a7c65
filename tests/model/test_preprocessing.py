"""Each mode against Keras' own function, and `normalize` against its formula."""

import json

import numpy as np
import pytest

from birdsonnx.config.transforms import Normalize
from birdsonnx.model.metadata_values import value_of
from birdsonnx.model.preprocessing import Preprocessing, of_mode, of_normalize
from tests.networks import keras_warns

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)


@keras_warns
@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_modes_are_those_of_keras(keras, mode):
    expected = keras.applications.imagenet_utils.preprocess_input(PIXELS.astype(np.float32), mode=mode)
    found = of_mode(mode, 3)(PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_unit_and_none():
    np.testing.assert_allclose(of_mode("unit", 3)(PIXELS), PIXELS / 255, rtol=1e-6)
    np.testing.assert_array_equal(of_mode("none", 1)(PIXELS[..., :1]), PIXELS[..., :1])


@pytest.mark.parametrize("mean", [(0.5,), (0.4, 0.5, 0.6)])
@pytest.mark.parametrize("std", [(0.25,), (0.1, 0.2, 0.3)])
def test_normalize(mean, std):
    found = of_normalize(Normalize(mean, std), 3)(PIXELS)
    np.testing.assert_allclose(found, (PIXELS / 255 - np.array(mean)) / np.array(std), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["caffe", "torch"])
def test_colour_modes_need_3_channels(mode):
    with pytest.raises(ValueError, match=r"3 (channels|values), .* takes 1"):
        of_mode(mode, 1)


def test_normalize_of_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="3 values, the network takes 1 channel"):
        of_normalize(Normalize((0.1, 0.2, 0.3), (1.0,)), 1)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf", "unit", "none"])
def test_json_round_trip(mode):
    read = value_of("preprocessing", json.dumps(of_mode(mode, 3).as_json()))
    assert Preprocessing(**read) == of_mode(mode, 3)
