"""One flat buffer, and the weights as views into it."""

import numpy as np
import pytest

from birdsonnx.training.parameters import FlatWeights


@pytest.fixture
def weights():
    found = FlatWeights(
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32), "c": np.float32([0])}
    )
    found.set({"a": np.arange(6).reshape(2, 3), "b": np.full(4, 9), "c": np.array([7])})
    return found


def test_the_order_is_that_of_the_names_given(weights):
    assert weights.flat.dtype == np.float32
    np.testing.assert_array_equal(weights.flat, [0, 1, 2, 3, 4, 5, 9, 9, 9, 9, 7])
    assert {name: value.shape for name, value in weights.named.items()} == {"a": (2, 3), "b": (4,), "c": (1,)}


def test_a_change_of_one_is_a_change_of_both(weights):
    weights.flat[7] = -1
    np.testing.assert_array_equal(weights.named["b"], [9, -1, 9, 9])
    weights.named["a"][1, 2] = 50
    assert weights.flat[5] == 50


def test_set_copies(weights):
    values = {name: value.copy() for name, value in weights.named.items()}
    weights.set(values)
    values["b"][0] = 1000
    assert weights.flat.max() < 1000


def test_the_values_it_was_made_like_are_left_alone():
    like = {"a": np.ones(2, np.float32)}
    FlatWeights(like).flat[...] = 5
    np.testing.assert_array_equal(like["a"], [1, 1])


def test_a_missing_weight_is_an_error(weights):
    with pytest.raises(KeyError, match="b"):
        weights.set({"a": np.zeros((2, 3), np.float32)})
