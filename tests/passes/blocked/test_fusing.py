"""What a convolution takes over, and what it does not."""

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from birdsonnx.passes.blocked.block_size import BLOCKED_DOMAIN
from birdsonnx.passes.blocked.fusing import FuseSumsAndActivations
from birdsonnx.passes.rewriting import apply

CONV = helper.make_node("Conv", ["x", "w"], ["c"], domain=BLOCKED_DOMAIN)
BIASED = helper.make_node("Conv", ["x", "w", "b"], ["c"], domain=BLOCKED_DOMAIN)
SECOND = helper.make_node("Conv", ["x", "v"], ["d"], domain=BLOCKED_DOMAIN)


def then(operation: str, *inputs: str, output: str = "y") -> onnx.NodeProto:
    return helper.make_node(operation, inputs, [output])


def fused(nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",)) -> tuple[int, ModelProto]:
    graph = helper.make_graph(
        [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes],
        "test",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph)
    return apply(FuseSumsAndActivations(), model.graph).applied, model


@pytest.mark.parametrize(
    ("nodes", "inputs", "activation"),
    [
        ([CONV, then("Add", "c", "z")], ["x", "w", "", "z"], False),
        ([BIASED, then("Add", "z", "c")], ["x", "w", "b", "z"], False),
        ([BIASED, then("Sum", "z", "c")], ["x", "w", "b", "z"], False),
        ([CONV, then("Relu", "c")], ["x", "w"], True),
        ([CONV, then("Add", "c", "z", output="s"), then("Relu", "s")], ["x", "w", "", "z"], True),
        ([CONV, then("Neg", "k", output="z"), then("Add", "c", "z")], ["x", "w", "", "z"], False),
    ],
    ids=["Add", "with bias", "Sum", "Relu", "both", "a summand made later"],
)
def test_a_convolution_takes_over(nodes, inputs, activation):
    count, model = fused(nodes)
    others = sum(node.op_type == "Neg" for node in nodes)
    assert count == len(nodes) - 1 - others
    last = model.graph.node[-1]
    assert len(model.graph.node) == 1 + others
    assert (last.op_type, list(last.input), list(last.output)) == ("Conv", inputs, ["y"])
    assert [(item.name, item.s) for item in last.attribute] == (
        [("activation", b"Relu")] if activation else []
    )


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([CONV, then("Add", "c", "z"), then("Neg", "c", output="n")], ("y", "n")),
        ([CONV, then("Add", "c", "z")], ("y", "c")),
        ([CONV, then("Add", "c", "c")], ("y",)),
        ([CONV, then("Sum", "c", "z", "v")], ("y",)),
        ([CONV, then("Sub", "c", "z")], ("y",)),
        ([CONV, then("Tanh", "c")], ("y",)),
        ([helper.make_node("Conv", ["x", "w"], ["c"]), then("Add", "c", "z")], ("y",)),
    ],
    ids=["another reader", "an output", "itself twice", "three", "Sub", "Tanh", "not blocked"],
)
def test_a_convolution_takes_nothing_over(nodes, outputs):
    count, model = fused(nodes, outputs)
    assert count == 0
    assert list(model.graph.node) == nodes


def test_a_convolution_adds_once_and_before_its_activation():
    count, model = fused([CONV, then("Add", "c", "z", output="s"), then("Add", "s", "v")])
    assert count == 1
    assert [node.op_type for node in model.graph.node] == ["Conv", "Add"]
    count, model = fused([CONV, then("Relu", "c", output="s"), then("Add", "s", "v")])
    assert count == 1
    assert [node.op_type for node in model.graph.node] == ["Conv", "Add"]
    count, model = fused([CONV, then("Relu", "c", output="s"), then("Relu", "s")])
    assert count == 1


def test_of_two_convolutions_the_later_adds_the_other():
    count, model = fused([CONV, SECOND, then("Add", "c", "d")])
    assert count == 1
    assert [list(node.input) for node in model.graph.node] == [["x", "w"], ["x", "v", "", "c"]]
