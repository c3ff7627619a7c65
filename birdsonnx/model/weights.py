"""Weights by name, into a graph and out of it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from birdsonnx.model.edits import Editor, copy_of
from birdsonnx.model.model_file import BirdModel

Weights = dict[str, npt.NDArray[np.float32]]


def with_weights(model: BirdModel, weights: Mapping[str, npt.NDArray[np.float32]]) -> BirdModel:
    """The same network with these weights in place of its own of the same names."""
    return BirdModel(having_weights(model.proto, weights), model.metadata, model.where)


def having_weights(model: ModelProto, weights: Mapping[str, npt.NDArray[np.float32]]) -> ModelProto:
    """A copy of a graph with these weights as constants, in place of those of the same names."""
    proto = copy_of(model)
    with Editor(proto.graph) as graph:
        for name, value in weights.items():
            graph.set_constant(name, value)
    return proto
