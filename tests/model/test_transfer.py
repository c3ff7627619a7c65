"""Weights from one network into another."""

import numpy as np
import pytest
from onnx import numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.model import transfer
from birdsonnx.model.metadata import Layer
from birdsonnx.model.model_file import BirdModel
from tests.tiny import residual_model, tiny_model

CONV, DENSE = {"kernel": (8, 3, 5, 5), "bias": (8,)}, {"kernel": (24, 3), "bias": (3,)}


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}


def test_layers_fit_by_name_and_shape():
    network = {"conv": CONV, "other": CONV, "head": {**DENSE, "kernel": (24, 5)}, "bare": {"kernel": (1,)}}
    file = {"conv": CONV, "head": DENSE, "left": DENSE, "bare": {"kernel": (1,), "bias": (1,)}}
    found = transfer.fit(network, file)
    assert found.taken == ("conv",)
    assert found.fresh == {
        "other": "not in the file",
        "head": "it has 24x3 3, the network 24x5 3",
        "bare": "it has 1 1, the network 1",
    }
    assert found.unused == ("left",)


def test_what_is_left_over_is_one_line_each_way():
    fresh = {"a": "not in the file", "b": "it has 3, the network 4"}
    found = transfer.Fit(("c",), fresh, tuple("vwxyz"))
    assert found.notes("m.onnx") == [
        "a (not in the file), b (it has 3, the network 4): start from fresh weights",
        "m.onnx: the network has no place for v, w, x and 2 more",
    ]
    assert transfer.Fit(("c",), {"a": "why"}, ()).notes("m") == ["a (why): starts from fresh weights"]
    assert transfer.Fit(("c",), {}, ()).notes("m") == []


def test_nothing_that_fits_is_refused():
    found = transfer.fit({"a": CONV}, {"b": CONV})
    with pytest.raises(ModelError, match=r"^m: none of its weights fits .*: a \(not in the file\)$"):
        found.require((), "m")


def test_a_frozen_layer_must_get_its_weights():
    found = transfer.fit({"a": CONV, "b": DENSE, "c": DENSE}, {"a": CONV})
    found.require({"a"}, "m")
    with pytest.raises(ModelError, match=r"^m: frozen layers get no weights: c \(not in the file\)$"):
        found.require({"a", "c"}, "m")


def test_a_network_with_another_head():
    checkpoint, network = tiny_model(3, seed=1), tiny_model(5, seed=2)
    model, found = transfer.transferred(network, checkpoint)
    assert (found.taken, list(found.fresh), found.unused) == (("conv1", "conv2"), ["dense"], ())
    theirs, fresh, ours = weights(checkpoint), weights(network), weights(model)
    for name, value in ours.items():
        expected = theirs if name.startswith("conv") else fresh
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert model.metadata == network.metadata


def test_networks_that_share_no_more_than_a_name():
    _, found = transfer.transferred(tiny_model(3), residual_model(3))
    assert found.taken == ()
    assert found.fresh["dense"] == "it has 32x3 3, the network 24x3 3"
    assert set(found.unused) == {"stem", "block_a", "block_b", "last"}


def test_a_name_that_begins_another_is_not_it():
    model = tiny_model()
    graph = model.proto.graph
    for tensor in graph.initializer:
        tensor.name = tensor.name.replace("conv2/", "conv1/inner/")
    for node in graph.node:
        node.input[:] = [name.replace("conv2/", "conv1/inner/") for name in node.input]
    layers = (Layer("conv1", "Conv2D", 8, False), Layer("conv1/inner", "Conv2D", 24, False))
    nested = BirdModel(model.proto, model.metadata.having(layers=layers), "nested")
    assert transfer.transferred(nested, nested)[1].taken == ("conv1", "conv1/inner")
