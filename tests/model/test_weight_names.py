"""Which layer a name belongs to."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.model.weight_names import arrays_by_layer, layer_of, scope_of, weights_by_layer
from tests.graphs import graph_of

LAYERS = {"conv1", "backbone", "backbone/conv1", "backbone/conv1/inner", "backbone/conv10"}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv1/kernel", "conv1"),
        ("conv1/Conv", "conv1"),
        ("conv1/Elu/3", "conv1"),
        ("backbone/conv1/kernel", "backbone/conv1"),
        ("backbone/conv1/inner/depthwise_kernel", "backbone/conv1/inner"),
        ("backbone/conv10/kernel", "backbone/conv10"),
        ("backbone/conv11/kernel", "backbone"),
        ("conv10/kernel", None),
        ("conv1", None),
        ("kernel", None),
        ("", None),
    ],
)
def test_it_is_the_longest_path_that_the_name_begins_with(name, layer):
    assert layer_of(name, LAYERS) == layer


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("conv1/Conv:0", "conv1"),
        ("left/conv1/Conv_2:0", "left/conv1"),
        ("left/conv1/Relu:0/every_2_2", "left/conv1"),
        ("left/dropout/Dropout", "left/dropout"),
        ("images", "images"),
    ],
)
def test_a_node_is_called_after_its_layer(name, scope):
    assert scope_of(name) == scope


def test_any_role_is_a_weight_and_numbers_of_nodes_are_none():
    """The layers hold what they hold; a list of roles would forget one."""
    layers = {"a": ["a/new_role"], "a/b": ["a/b/query/kernel", "a/b/bias"]}
    others = ["a/b/Add/input_1", "norm/mean", "other/kernel"]
    names = [*layers["a"], *layers["a/b"], *others]
    nodes = [
        helper.make_node("Add", [f"t{number}" if number else "x", name], [f"t{number + 1}"])
        for number, name in enumerate(names)
    ]
    nodes[-1].output[0] = "y"
    constants = {name: np.ones(4, np.float32) for name in (*reversed(names), "a/unread")}
    graph = graph_of(nodes, constants, ["batch", 4], ["batch", 4]).graph
    assert weights_by_layer(graph, {"a", "a/b", "norm"}) == layers
    assert arrays_by_layer(graph, {"a", "a/b", "norm"}) == {**layers, "norm": ["norm/mean"]}
