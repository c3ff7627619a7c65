"""Frozen parts of tiny networks, apart from the tests, whose imports each rank would repeat."""

import numpy as np

from birdsonnx.images.decoding import decoder
from birdsonnx.training.backbone import Backbone
from birdsonnx.training.partition import Network
from tests.tiny import FEATURES, residual_model, tiny_model

KINDS = {
    "one tensor": (tiny_model, ["dense"], False, [("s", (FEATURES,))]),
    "half": (tiny_model, ["dense"], True, [("s", (FEATURES,))]),
    "two tensors": (
        residual_model,
        ["block_b", "dense"],
        False,
        [("block_a/active", (16, 16, 16)), ("stem/relu", (16, 16, 16))],
    ),
    "two tensors, half": (
        residual_model,
        ["block_b", "dense"],
        True,
        [("block_a/active", (16, 16, 16)), ("stem/relu", (16, 16, 16))],
    ),
}
"""Network, trained layers, whether rows are float16; and what must be at the boundary."""


def backbone(seed=0, transforms=None, kind="one tensor", model=None):
    make, trainable, half, _ = KINDS[kind]
    network = Network(make(seed=seed) if model is None else model, trainable)
    part = network.divide(network.frontier, half)
    row = np.dtype((part.row_type, part.row_shape))
    return Backbone(part.backbone, row, decoder(32, 32, 3, transforms), 2)
