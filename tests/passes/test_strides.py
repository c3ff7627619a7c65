"""Strides moved up: the same numbers from fewer products, and what must stay."""

import numpy as np
import pytest
from onnx import helper

from birdsonnx.passes.strides import READ_IN_FULL, is_thinning, move_strides_up
from tests.graphs import answer, graph_of, operators, random

node = helper.make_node
SHAPE = ["batch", 4, 9, 8]


KERNELS = {
    "w3": random(4, 4, 3, 3, seed=1),
    "w1": random(4, 4, 1, 1, seed=2),
    "wa": random(5, 4, 1, 1, seed=3),
    "wb": random(5, 4, 1, 1, seed=4),
}


def conv(source: str, kernel: str, target: str, stride: int = 1, pad: int = 0, **more):
    size = KERNELS[kernel].shape[-1]
    return node(
        "Conv", [source, kernel], [target], target,
        kernel_shape=[size, size], strides=[stride, stride], pads=[pad] * 4, **more,
    )  # fmt: skip


def model(nodes, output=(5, 5, 4)):
    used = {name: KERNELS[name] for name in KERNELS if any(name in each.input for each in nodes)}
    return graph_of(nodes, used, SHAPE, ["batch", *output])


BLOCK = [
    node("Relu", ["x"], ["start"]),
    conv("start", "w3", "c3", pad=1),
    node("Relu", ["c3"], ["r3"]),
    conv("r3", "w1", "c1"),
    node("Add", ["c1", "start"], ["sum"]),
    node("Relu", ["sum"], ["out"]),
]
STAGE = [conv("out", "wa", "a", stride=2), conv("out", "wb", "b", stride=2), node("Add", ["a", "b"], ["y"])]


def strides_of(model) -> dict[str, int]:
    return {
        each.name: next(item.ints[0] for item in each.attribute if item.name == "strides")
        for each in model.graph.node
        if each.op_type == "Conv"
    }


def test_a_residual_block_computes_what_the_next_stage_reads():
    network = model([*BLOCK, *STAGE])
    images = random(3, 4, 9, 8, seed=9)
    before = answer(network, images)
    assert move_strides_up(network.graph).applied == 2
    assert strides_of(network) == {"c3": 2, "c1": 1, "a": 1, "b": 1}
    assert [is_thinning(each) for each in network.graph.node].count(True) == 1
    # The same products, summed in another order.
    np.testing.assert_allclose(answer(network, images), before, rtol=1e-5, atol=1e-5)
    assert move_strides_up(network.graph).applied == 0


def test_strides_multiply():
    network = model([conv("x", "w3", "c3", stride=2, pad=1), conv("c3", "wa", "y", stride=3)], (5, 2, 2))
    images = random(2, 4, 9, 8, seed=9)
    before = answer(network, images)
    assert move_strides_up(network.graph).applied == 1
    assert strides_of(network) == {"c3": 6, "y": 1}
    np.testing.assert_allclose(answer(network, images), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "declined"),
    [
        (
            [*BLOCK, conv("out", "wa", "a", stride=2), conv("out", "wb", "full"), *STAGE[1:]],
            {READ_IN_FULL: 1},
        ),
        ([conv("x", "w1", "c"), node("MaxPool", ["c"], ["out"], kernel_shape=[1, 1]), *STAGE], {}),
        ([node("Relu", ["x"], ["out"]), *STAGE], {}),
        ([conv("x", "w1", "c"), node("Add", ["c", "c"], ["out"]), *STAGE], {}),
        ([conv("x", "w3", "c", pad=1), conv("c", "w3", "y", stride=2, pad=1)], {}),
    ],
    ids=["read in full too", "another operation", "nothing to spare", "twice the same", "3 x 3 reader"],
)
def test_what_stays(nodes, declined):
    network = model(nodes)
    before = network.SerializeToString()
    report = move_strides_up(network.graph)
    assert (report.applied, report.declined) == (0, declined)
    assert network.SerializeToString() == before


def test_a_graph_output_stays_whole():
    network = model([*BLOCK, *STAGE])
    network.graph.output.append(helper.make_tensor_value_info("out", 1, SHAPE))
    assert move_strides_up(network.graph).declined == {READ_IN_FULL: 1}
    assert "MaxPool" not in operators(network.graph)


def test_two_branches_of_one_shortcut_share_what_they_take_of_it():
    """A graph may make each tensor once only."""
    branch = [
        conv("start", "w1", "c2"),
        node("Add", ["c2", "start"], ["sum2"]),
        conv("sum2", "wa", "a", stride=2),
    ]
    network = model([*BLOCK, *branch, conv("out", "wb", "b", stride=2), node("Add", ["a", "b"], ["y"])])
    images = random(3, 4, 9, 8, seed=9)
    before = answer(network, images)
    assert move_strides_up(network.graph).applied == 3
    assert [is_thinning(each) for each in network.graph.node].count(True) == 1
    np.testing.assert_allclose(answer(network, images), before, rtol=1e-5, atol=1e-5)
