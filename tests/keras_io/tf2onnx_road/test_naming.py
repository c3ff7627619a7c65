"""Names of nodes, tensors and weights."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from birdsonnx.keras_io.tf2onnx_road.naming import layer_of, name_weights
from tests.graphs import answer, graph_of, random

node = helper.make_node


def test_name_weights():
    model = graph_of(
        [
            node("Conv", ["x", "net/stem_conv_1/merged:0", "b__12"], ["net/stem_conv_1/out:0"], "conv__3"),
            node("Relu", ["net/stem_conv_1/out:0"], ["net/act_1/Relu:0"], "net/act_1/Relu"),
            node("Add", ["net/act_1/Relu:0", "const__7"], ["y"], "plus__9"),
        ],
        {"net/stem_conv_1/merged:0": random(5, 4, 1, 1), "b__12": random(5), "const__7": random(1)},
        ["batch", 4, 3, 3],
        ["batch", 5, 3, 3],
    )
    before = answer(model, random(2, 4, 3, 3))
    name_weights(model.graph, {"stem_conv": "Conv2D", "act": "ReLU"})
    assert [item.name for item in model.graph.node] == ["stem_conv/Conv", "act/Relu", "plus"]
    names = {tensor.name for tensor in model.graph.initializer}
    assert names == {"stem_conv/kernel", "stem_conv/bias", "plus/input_1"}
    assert list(model.graph.node[1].output) == ["act/Relu:0"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "y"]
    np.testing.assert_array_equal(answer(model, random(2, 4, 3, 3)), before)


def test_name_weights_does_not_depend_on_the_counters_of_tf2onnx():
    def numbered(start):
        names = [f"plus__{start + index}" for index in range(2)]
        nodes = [node("Add", ["x", f"k__{start}"], ["m"], names[0]), node("Add", ["m", "m"], ["y"], names[1])]
        model = graph_of(nodes, {f"k__{start}": random(4)}, ["batch", 4], ["batch", 4])
        name_weights(model.graph, {"dense": "Dense"})
        return model

    assert numbered(5) == numbered(731)
    assert [item.name for item in numbered(5).graph.node] == ["plus", "plus_2"]


@pytest.mark.parametrize(
    ("scope", "layer"),
    [
        ("model_1/conv1_conv_1/convolution", "conv1_conv"),
        ("functional_1/dense_1/MatMul:0", "dense"),
        ("functional_1/dense_2/MatMul:0", "dense"),
        ("functional_1/block_7/Relu", "block_7"),
        ("functional_1/resnet_1/conv1_conv_1/add_1:0", "conv1_conv"),
        ("const_fold_opt__99", None),
    ],
)
def test_layer_of(scope, layer):
    assert layer_of(scope, ["conv1_conv", "dense", "dense_1", "block_7", "add"]) == layer


def test_layers_that_shared_an_equal_constant_hold_their_own():
    model = graph_of(
        [
            node("Conv", ["x", "net/one_1/w:0", "net/one_1/b:0"], ["c"], "net/one_1/convolution"),
            node("Conv", ["c", "net/two_1/w:0", "net/one_1/b:0"], ["d"], "net/two_1/convolution"),
            node("Mul", ["d", "ones"], ["e"], "net/bn_1/batchnorm/mul"),
            node("Mul", ["e", "ones"], ["f"], "net/other_bn_1/batchnorm/mul"),
            node("Conv", ["f", "net/two_1/w:0", "net/one_1/b:0"], ["y"], "net/two_2/convolution"),
        ],
        {
            "net/one_1/w:0": random(4, 4, 1, 1),
            "net/two_1/w:0": random(4, 4, 1, 1, seed=1),
            "net/one_1/b:0": np.zeros(4, np.float32),
            "ones": np.ones((1, 4, 1, 1), np.float32),
        },
        ["batch", 4, 3, 3],
        ["batch", 4, 3, 3],
    )
    before = answer(model, random(2, 4, 3, 3))
    kinds = {"one": "Conv2D", "two": "Conv2D", "bn": "BatchNormalization", "other_bn": "BatchNormalization"}
    name_weights(model.graph, kinds)
    read = [list(item.input[1:]) for item in model.graph.node]
    second = ["two/kernel", "two/bias"]
    assert read == [["one/kernel", "one/bias"], second, ["bn/scale"], ["other_bn/scale"], second]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert set(values) == {name for names in read for name in names}
    np.testing.assert_array_equal(answer(model, random(2, 4, 3, 3)), before)
