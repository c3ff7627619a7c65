"""Trunks of a few nodes, computed by oneDNN, with gradients by weights and by what is given to them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from birdsonnx.onednn import library, program
from birdsonnx.onednn.library import Library, OnednnError
from birdsonnx.onednn.lowering import TrainedTrunk, trained_trunk
from birdsonnx.onednn.operations.affine import constants
from birdsonnx.onednn.weight_forms import WeightForms
from birdsonnx.runtime import isa
from birdsonnx.training.parameters import FlatWeights
from tests.onednn import forward

Arrays = Mapping[str, np.ndarray]
node = helper.make_node


def is_loadable() -> bool:
    try:
        library.load()
    except OnednnError:
        return False
    return True


needs_onednn = pytest.mark.skipif(not is_loadable(), reason="no oneDNN 3.x (extra bf16) can be loaded here")
needs_bfloat16 = pytest.mark.skipif(
    not (is_loadable() and "avx512f" in isa.extensions()),
    reason="bfloat16 needs oneDNN 3.x (extra bf16) and a CPU with AVX-512",
)
"""Where there are no instructions for bfloat16 itself, it does so slowly."""


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers that bfloat16 has as well, so that weights and inputs are not rounded."""
    wide = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return (wide.view(np.uint32) & 0xFFFF0000).view(np.float32)


def graph_of(
    nodes: Sequence[NodeProto], values: Arrays, given: Mapping[str, Sequence[int]], output: str = "y"
) -> ModelProto:
    """A model from the inputs `given` (shapes of one photo) to `output`, nodes named after their result
    where they have no name."""
    for each in nodes:
        each.name = each.name or f"{each.output[0]}/{each.op_type}"
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *dims])
            for name, dims in given.items()
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return shape_inference.infer_shapes(model)


@dataclass(frozen=True)
class Found:
    """The last value, and gradients by name: of trained weights, and of all that is given."""

    result: np.ndarray
    gradients: dict[str, np.ndarray]


def computed(
    model: ModelProto, weights: Arrays, feeds: Arrays, gradient: np.ndarray, kind: int, turned: bool = False
) -> Found:
    """By oneDNN.

    Args:
        model: to one map.
        weights: the trained ones.
        feeds: of a batch.
        gradient: of the result.
        kind: BF16 or F32.
        turned: whether kernels and their gradients lie as `FlatWeights` turns them.
    """
    trained = trained_trunk(model, list(weights))
    flat = FlatWeights(dict(weights), turned=trained.kernels.intersection(weights) if turned else ())
    flat.set(dict(weights))
    views = flat.views_of(np.full(flat.flat.size, np.nan, np.float32))
    given = {name: trained.as_given(name, feeds[name]) for name in trained.given}
    by_given = {name: np.full_like(value, np.nan) for name, value in given.items()}
    trained = reaching(trained, trained.given)
    computes = library.load()
    bound = program.Replica(computes).bound(compiled(computes, trained, model, flat.named, gradient, kind))
    result = np.full(gradient.shape, np.nan, np.float32)
    for name, value in given.items():
        bound.give(name, value)
        bound.give(name + program.GRADIENT, by_given[name])
    for name in trained.trunk.weights:
        bound.give(name, views[name])
    bound.give(trained.trunk.result, result)
    bound.give(trained.trunk.result + program.GRADIENT, gradient)
    bound.forward()
    bound.backward()
    of_weights = {name: views[name].copy() for name in trained.trunk.weights}
    return Found(result, {**of_weights, **by_given})


def reaching(trained: TrainedTrunk, names: Collection[str]) -> TrainedTrunk:
    """The same, with gradients by these frozen values as well."""
    return replace(trained, values=replace(trained.values, reached={*trained.values.reached, *names}))


def compiled(
    computes: Library, trained: TrainedTrunk, model: ModelProto, weights: Arrays, like: np.ndarray, kind: int
) -> program.Recorded:
    frozen = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name not in weights and tensor.data_type == TensorProto.FLOAT
    }
    forms = WeightForms(computes, weights, {**constants(), **frozen})
    return program.compiled(computes, trained, forms, len(like), kind)


def result_of(model: ModelProto, feeds: Arrays) -> np.ndarray:
    """In float64."""
    wide = {name: np.asarray(value, np.float64) for name, value in feeds.items()}
    return forward.outputs(model, wide)[model.graph.output[0].name]
