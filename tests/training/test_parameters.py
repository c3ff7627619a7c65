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


# --- Turned kernels -------------------------------------------------------------------------------------

VALUES = {
    "a": np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5),
    "b": np.arange(6, dtype=np.float32),
    "c": -np.arange(2 * 1 * 3 * 3, dtype=np.float32).reshape(2, 1, 3, 3),
}


@pytest.fixture
def turned():
    found = FlatWeights(VALUES, turned={"a"})
    found.set(VALUES)
    return found


def test_a_turned_kernel_lies_with_its_channels_inside(turned):
    for name, value in VALUES.items():
        np.testing.assert_array_equal(turned.named[name], value)
        assert np.shares_memory(turned.named[name], turned.flat)
    np.testing.assert_array_equal(turned.flat[:120].reshape(4, 5, 3, 2), VALUES["a"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(turned.flat[120:126], VALUES["b"])
    np.testing.assert_array_equal(turned.flat[126:].reshape(2, 1, 3, 3), VALUES["c"])
    turned.named["a"][1, 2, 3, 4] = 7777
    assert turned.flat[119] == 7777


def test_views_of_another_buffer_are_turned_too(turned):
    """Also of one that is longer, as gradients with a loss at the end are."""
    buffer = np.zeros(turned.flat.size + 1, np.float32)
    views = turned.views_of(buffer)
    for name, value in VALUES.items():
        views[name][...] = value
    np.testing.assert_array_equal(buffer[:-1], turned.flat)


def test_files_have_the_order_of_the_graph(turned):
    plain = FlatWeights(VALUES)
    plain.set(VALUES)
    np.testing.assert_array_equal(turned.in_graph_order(turned.flat), plain.flat)
    np.testing.assert_array_equal(turned.from_graph_order(plain.flat), turned.flat)
    np.testing.assert_array_equal(plain.in_graph_order(plain.flat), plain.flat)
    np.testing.assert_array_equal(plain.from_graph_order(plain.flat), plain.flat)
    drawn = np.random.default_rng(0).normal(size=turned.flat.size).astype(np.float32)
    np.testing.assert_array_equal(turned.from_graph_order(turned.in_graph_order(drawn)), drawn)
    np.testing.assert_array_equal(turned.in_graph_order(turned.from_graph_order(drawn)), drawn)


def test_nothing_turned_is_as_without(turned):
    np.testing.assert_array_equal(FlatWeights(VALUES, turned=()).flat, FlatWeights(VALUES).flat)
    assert [span.stop for span in turned.spans] == [span.stop for span in FlatWeights(VALUES).spans]
