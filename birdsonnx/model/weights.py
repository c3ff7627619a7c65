"""Weights by name, into a graph and out of it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from birdsonnx.model.graph import set_constant
from birdsonnx.model.model_file import BirdModel

Weights = dict[str, npt.NDArray[np.float32]]


def with_weights(model: BirdModel, weights: Mapping[str, npt.NDArray[np.float32]]) -> BirdModel:
    """The same network with these weights in place of its own of the same names."""
    return BirdModel(having_weights(model.proto, weights), model.metadata, model.where)


def having_weights(model: ModelProto, weights: Mapping[str, npt.NDArray[np.float32]]) -> ModelProto:
    """A copy of a graph with these weights as constants, in place of those of the same names."""
    proto = ModelProto()
    proto.CopyFrom(model)
    for name, value in weights.items():
        set_constant(proto.graph, name, value)
    return proto
