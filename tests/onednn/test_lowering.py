"""Which trunks have a form for oneDNN, what is refused and by which name, and what becomes one operation.
Nothing here needs the library."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from birdsonnx.onednn.lowering import NotLowered, TrainedTrunk, trained_trunk
from birdsonnx.onednn.operations.activation import RELU, SIGMOID, SWISH, Activation
from birdsonnx.onednn.operations.affine import ONES, ZEROS, Affine
from birdsonnx.onednn.operations.arithmetic import Product, Sum
from birdsonnx.onednn.operations.convolution import Convolution
from tests.onednn.trunks import drawn, graph_of, node

SHAPES = {
    "k": (8, 8, 3, 3),
    "l": (8, 8, 1, 1),
    "b": (8,),
    "by": (8, 1, 1),
    "plus": (1, 8, 1, 1),
    "dense": (8, 3),
}
AROUND = {"pads": [1, 1, 1, 1]}


def network(*nodes: NodeProto, last: str = "y", more: Mapping[str, np.ndarray] | None = None) -> ModelProto:
    """From `x` through `nodes` to the map `last`, and from there to scores, as heads do it."""
    head = [
        node("GlobalAveragePool", [last], ["mean"], "mean/GlobalAveragePool"),
        node("Flatten", ["mean"], ["flat"], "mean/Flatten"),
        node("MatMul", ["flat", "dense"], ["scores"], "dense/MatMul"),
    ]
    values = {name: drawn(*shape, seed=len(name)) for name, shape in SHAPES.items()}
    return graph_of([*nodes, *head], {**values, **(more or {})}, {"x": (8, 7, 6)}, "scores")


def conv(source: str, result: str, kernel: str = "k", *bias: str, **options: object) -> NodeProto:
    return node("Conv", [source, kernel, *bias], [result], f"{result}_layer/Conv", **options)


def lowered(*nodes: NodeProto, weights: Sequence[str] = ("k", "dense"), **options: object) -> TrainedTrunk:
    return trained_trunk(network(*nodes, **options), weights)


# --- What is a trunk ------------------------------------------------------------------------------------


def test_the_trunk_ends_where_maps_become_vectors():
    found = lowered(conv("x", "a"), node("Relu", ["a"], ["y"]))
    assert found.trunk.result == "y"
    assert found.trunk.weights == ("k",)
    assert found.given == ("x",)
    assert found.kernels == {"k"}
    assert found.trunk.inner == {"a"}


def test_what_is_frozen_before_it_is_given():
    found = lowered(
        conv("x", "a", "l"),
        node("Relu", ["a"], ["r"]),
        conv("r", "c", **AROUND),
        node("Add", ["c", "r"], ["y"]),
    )
    assert found.given == ("r",)
    assert [type(each) for each in found.operations] == [Convolution]
    assert found.operations[0].added == "r"


def test_frozen_kernels_after_trained_ones_are_in_it():
    found = lowered(conv("x", "a", "k", "b"), conv("a", "y", "l"))
    assert found.trunk.weights == ("k",)
    assert found.kernels == {"k", "l"}


@pytest.mark.parametrize("weights", [["k", "l", "dense"], ["l", "k"]])
def test_a_weight_that_leads_nowhere_is_refused(weights):
    nodes = conv("x", "y"), conv("y", "idle", "l")
    with pytest.raises(NotLowered, match=r"^layer 'l' is trained and has no way to the loss$"):
        lowered(*nodes, weights=weights)
    assert lowered(*nodes).trunk.weights == ("k",)


@pytest.mark.parametrize("weights", [["dense"], []])
def test_a_head_alone_has_none(weights):
    with pytest.raises(NotLowered, match=r"^what is trained has no convolutions$"):
        lowered(conv("x", "y"), weights=weights)


def test_a_weight_of_both_parts_is_refused():
    model = network(conv("x", "y"))
    model.graph.node.insert(2, node("Mul", ["mean", "by"], ["scaled"], "twice/Mul"))
    model.graph.node[3].input[0] = "scaled"
    model.graph.node.insert(1, node("Mul", ["y", "by"], ["z"], "twice/Mul_1"))
    model.graph.node[2].input[0] = "z"
    with pytest.raises(NotLowered, match=r"^layer 'by' is also used after the convolutions$"):
        trained_trunk(model, ["k", "by"])
    assert trained_trunk(model, ["k"]).trunk.weights == ("k",)


@pytest.mark.parametrize("dims", [(), (1,), (1, 1, 1)])
def test_one_trained_number_for_all_channels_is_refused(dims):
    """A kernel would write as many gradients as there are channels."""
    nodes = conv("x", "a"), node("Mul", ["a", "scale/factor"], ["y"])
    more = {"scale/factor": np.full(dims, 2, np.float32)}
    with pytest.raises(NotLowered, match=r"^layer 'scale' trains one number for all channels$"):
        lowered(*nodes, weights=["k", "scale/factor"], more=more)
    assert lowered(*nodes, more=more).trunk.weights == ("k",)


# --- What is refused by name ----------------------------------------------------------------------------

INTS = np.int64
CONSTANTS = {
    "zeros": np.zeros(2, INTS),
    "first": np.array([0, 1], INTS),
    "ends": np.full(2, 99, INTS),
    "fewer": np.array([4, 4], INTS),
    "axes": np.array([2, 3], INTS),
    "channels": np.array([1, 2], INTS),
    "steps": np.array([2, 2], INTS),
    "margin": np.array([0, 0, 1, 1, 0, 0, 1, 1], INTS),
    "cut": np.array([0, 0, -1, 0, 0, 0, 0, 0], INTS),
    "more channels": np.array([0, 1, 0, 0, 0, 0, 0, 0], INTS),
    "one": np.float32(1),
    "slope": drawn(8, 1, 1),
    "map": drawn(8, 5, 4),
    "row": drawn(4),
}


def of(kind: str, *inputs: str, outputs: Sequence[str] = ("y",), **options: object) -> NodeProto:
    return node(kind, ["a", *inputs], list(outputs), "odd/Node", **options)


REFUSED = {
    "another activation": of("Softplus"),
    "a slope of each channel": of("PRelu", "slope"),
    "a normalization as it is exported": of("BatchNormalization", *["b"] * 4),
    "a Dropout": of("Dropout"),
    "padding that follows from the size": of("Conv", "l", auto_pad="SAME_UPPER"),
    "places of largest values": of("MaxPool", outputs=["y", "where"], kernel_shape=[2, 2]),
    "columns first": of("MaxPool", kernel_shape=[2, 2], storage_order=1),
    "a mean of padding, rounded up": of(
        "AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1
    ),
    "a piece from the second on": of("Slice", "first", "ends", "axes", "steps"),
    "a piece without the last": of("Slice", "zeros", "fewer", "axes", "steps"),
    "a piece of the channels": of("Slice", "zeros", "ends", "channels", "steps"),
    "a number for each place": of("Add", "map"),
    "a number for each column": of("Mul", "row"),
    "rows beside rows": of("Concat", "a", axis=2),
    "a mirrored margin": of("Pad", "margin", mode="reflect"),
    "a margin of ones": of("Pad", "margin", "one"),
    "a margin that is cut off": of("Pad", "cut"),
    "a margin of channels": of("Pad", "more channels"),
    "no upper bound": of("Clip", "one"),
    "no lower bound": of("Clip", "", "one"),
    "a mean over channels": of("ReduceMean", axes=[1], keepdims=1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_form_that_is_not_known_is_refused(name):
    odd = REFUSED[name]
    message = f"^layer 'odd' is a {odd.op_type} of a form that oneDNN does not train here$"
    with pytest.raises(NotLowered, match=message):
        lowered(conv("x", "a"), odd, more=CONSTANTS)


def test_a_computed_kernel_is_refused():
    nodes = node("Mul", ["k", "by"], ["made"], "made/Mul"), conv("x", "y", "made")
    with pytest.raises(
        NotLowered, match=r"^layer '(made|y_layer)' is a (Mul|Conv) of a form that oneDNN does not train"
    ):
        lowered(*nodes)


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_a_row_of_computed_numbers_is_refused(kind):
    """What is spread over rows or columns has no form; a sum with a number per channel neither."""
    nodes = [conv("x", "a"), node("GlobalAveragePool", ["a"], ["m"])]
    nodes.append(node("MaxPool", ["a"], ["r"], kernel_shape=[5, 1]))
    with pytest.raises(NotLowered):
        lowered(*nodes, node(kind, ["a", "r"], ["y"], "odd/Node"))
    if kind == "Add":
        with pytest.raises(NotLowered, match="'odd' is a Add"):
            lowered(*nodes[:2], node(kind, ["a", "m"], ["y"], "odd/Node"))


# --- What becomes one -----------------------------------------------------------------------------------


def kinds(found: TrainedTrunk) -> list[type]:
    return [type(each) for each in found.operations]


def test_a_sum_and_a_relu_join_the_later_convolution():
    convolutions = conv("x", "a", "l", "b"), conv("a", "c", **AROUND)
    rest = node("Add", ["a", "c"], ["s"]), node("Relu", ["s"], ["y"])
    found = lowered(*convolutions, *rest, weights=["k", "l"])
    assert kinds(found) == [Convolution, Convolution]
    assert found.operations[1].added == "a"
    assert found.operations[1].function == RELU
    assert found.operations[1].result == "y"


def test_a_convolution_adds_one_value_only():
    nodes = [conv("x", "a", "l"), conv("a", "c", **AROUND), node("Add", ["c", "a"], ["s"])]
    found = lowered(*nodes, node("Add", ["s", "a"], ["y"]), weights=["k", "l"])
    assert kinds(found) == [Convolution, Convolution, Sum]


def test_what_others_read_stays_apart():
    relu = node("Relu", ["a"], ["r"])
    found = lowered(conv("x", "a"), relu, node("Mul", ["a", "r"], ["y"]))
    assert kinds(found) == [Convolution, Activation, Product]


def test_the_last_value_is_read_by_the_head_too():
    found = lowered(conv("x", "y"))
    assert kinds(found) == [Convolution]
    assert found.values.readers["y"] == 1


def test_a_relu_of_a_relu_stays():
    found = lowered(conv("x", "a"), node("Relu", ["a"], ["r"]), node("Clip", ["r", "low", "high"], ["y"]),
                    more={"low": np.float32(0), "high": np.float32(6)})  # fmt: skip
    assert kinds(found) == [Convolution, Activation]


def test_a_function_whose_derivative_needs_its_argument_stays_apart():
    found = lowered(conv("x", "a"), node("HardSwish", ["a"], ["y"]))
    assert kinds(found) == [Convolution, Activation]


@pytest.mark.parametrize(("high", "joins"), [(6, True), (0.5, True), (0.9, False), (5.99, False)])
def test_a_clip_joins_where_bfloat16_has_its_bounds(high, joins):
    bounds = {"low": np.float32(-0.0), "high": np.float32(high)}
    found = lowered(conv("x", "a"), node("Clip", ["a", "low", "high"], ["y"]), more=bounds)
    assert kinds(found) == ([Convolution] if joins else [Convolution, Activation])


@pytest.mark.parametrize("inputs", [["a", "g"], ["g", "a"]])
def test_swish(inputs):
    found = lowered(conv("x", "a"), node("Sigmoid", ["a"], ["g"]), node("Mul", inputs, ["y"]))
    assert kinds(found) == [Convolution, Activation]
    assert found.operations[1] == Activation("a", "y", SWISH)


def test_a_sigmoid_that_is_read_twice_is_no_swish():
    nodes = node("Sigmoid", ["a"], ["g"]), node("Mul", ["a", "g"], ["m"]), node("Add", ["m", "g"], ["y"])
    found = lowered(conv("x", "a"), *nodes)
    assert kinds(found) == [Convolution, Activation, Product, Sum]
    assert found.operations[1].function == SIGMOID


def test_a_factor_and_a_summand_are_one():
    by, plus = node("Mul", ["by", "a"], ["m"]), node("Add", ["m", "plus"], ["y"])
    found = lowered(conv("x", "a"), by, plus, weights=["k", "by", "plus"])
    assert found.operations[1:] == (Affine("a", "y", "by", "plus"),)


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([("Add", "a", "plus", "m"), ("Mul", "m", "by", "y")],
         [Affine("a", "m", ONES, "plus"), Affine("m", "y", "by", ZEROS)]),
        ([("Mul", "a", "by", "m"), ("Mul", "m", "by", "y")],
         [Affine("a", "m", "by", ZEROS), Affine("m", "y", "by", ZEROS)]),
        ([("Mul", "a", "by", "m"), ("Add", "m", "plus", "p"), ("Mul", "p", "m", "y")],
         [Affine("a", "m", "by", ZEROS), Affine("m", "p", ONES, "plus"), Product("p", "m", "y")]),
    ],
    ids=["summand first", "two factors", "read twice"],
)  # fmt: skip
def test_other_pairs_are_two(nodes, wanted):
    made = [node(kind, [first, second], [result]) for kind, first, second, result in nodes]
    found = lowered(conv("x", "a"), *made, weights=["k", "by"])
    assert list(found.operations[1:]) == wanted
