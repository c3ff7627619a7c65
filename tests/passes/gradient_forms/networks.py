"""What several of these tests begin with."""

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, helper

from tests.graphs import graph_of, random

node = helper.make_node

NORM = {
    "gamma": random(5, seed=2) + 2,
    "beta": random(5, seed=3),
    "mean": random(5, seed=4),
    "variance": random(5, seed=5) ** 2 + 0.1,
}
"""Weights of a BatchNormalization over 5 channels."""


def averaged(size: Sequence[int] = (3, 3), **attributes: Any) -> ModelProto:
    """A 1 x 1 convolution of weights `w`, a Relu, and an AveragePool."""
    return graph_of(
        [
            node("Conv", ["x", "w"], ["c"], "conv/Conv", kernel_shape=[1, 1]),
            node("Relu", ["c"], ["r"], "conv/Relu"),
            node("AveragePool", ["r"], ["y"], "mean/AveragePool", kernel_shape=size, **attributes),
        ],
        {"w": random(5, 4, 1, 1)},
        ["batch", 4, 7, 6],
        ["batch", 5, None, None],
    )
