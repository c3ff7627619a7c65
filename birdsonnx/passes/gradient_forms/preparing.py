"""A graph made ready for training: every operation after the first trained weight in a form with a gradient.

Each form keeps the values, and goes into a copy that is trained, never into the model that is saved.
"""

from collections.abc import Collection

from onnx import ModelProto

from birdsonnx.errors import ConfigError
from birdsonnx.model.graph import Graph, depending_on, shapes_per_photo
from birdsonnx.model.weight_names import layer_of, scope_of
from birdsonnx.passes.gradient_forms import differentiable
from birdsonnx.passes.gradient_forms.activations import ActivationsAsArithmetic
from birdsonnx.passes.gradient_forms.average_pool import AveragePoolAsConvolution
from birdsonnx.passes.gradient_forms.batch_norm import BatchNormAsAffine
from birdsonnx.passes.gradient_forms.largest_of_map import LargestOfMapAsMaxPool
from birdsonnx.passes.gradient_forms.padding import PadsAsGiven
from birdsonnx.passes.gradient_forms.strided import StrideBeforePointwise, ThinningAsSlice
from birdsonnx.passes.rewriting import Report, apply


def prepare(
    model: ModelProto,
    weights: Collection[str],
    layers: Collection[str],
    where: str,
    elsewhere: Collection[str] = (),
) -> tuple[Report, ...]:
    """Give every operation after the first of `weights` a form that has a gradient.

    Args:
        model: is changed in place.
        weights: names of the constants to train.
        layers: paths of the network's layers, for messages.
        where: the model's name, for messages.
        elsewhere: values whose gradients the runtime is not asked for; what reads them keeps its form where
            only the runtime has no gradient of it.

    Raises:
        ConfigError: there is none; names the layer and the operation.
    """
    graph = model.graph
    shapes = shapes_per_photo(model)
    reports = [apply(PadsAsGiven(shapes), graph), apply(StrideBeforePointwise(), graph)]
    trained = depending_on(graph, weights)
    here = trained.difference(elsewhere)
    reports += [
        apply(form, graph)
        for form in (
            ThinningAsSlice(here),
            BatchNormAsAffine(trained, shapes),
            AveragePoolAsConvolution(here, shapes),
            LargestOfMapAsMaxPool(trained, shapes),
            ActivationsAsArithmetic(here),
        )
    ]
    _require_gradients(model, depending_on(graph, weights).difference(elsewhere), layers, where)
    return tuple(reports)


def _require_gradients(
    model: ModelProto, trained: Collection[str], layers: Collection[str], where: str
) -> None:
    graph = Graph(model.graph)
    for node in model.graph.node:
        reason = (
            differentiable.check(node, graph, trained)
            if any(name in trained for name in node.input)
            else None
        )
        if reason is not None:
            layer = layer_of(node.name, layers) or scope_of(node.name)
            raise ConfigError(
                f"{where}: layer {layer!r} is a {node.op_type}, which {reason}, and layers before it are to "
                'be trained; choose only layers after it with "birdsonnx": {"trainable": [...]}'
            )
