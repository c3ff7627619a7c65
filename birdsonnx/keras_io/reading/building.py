"""Records and arrays become a graph: calls in order, each drawn by the function of its layer's class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.config.wording import nearest, shown
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import batch_norms, operations
from birdsonnx.keras_io.reading.arrays import Weights
from birdsonnx.keras_io.reading.canvas import Canvas, Tensor
from birdsonnx.keras_io.reading.layers import LAYERS, NOT_READ, RUN_CODE
from birdsonnx.keras_io.reading.options import Options, Refusal
from birdsonnx.keras_io.reading.parsing import INPUT, INPUT_SHAPES
from birdsonnx.keras_io.reading.paths import Full, Paths
from birdsonnx.keras_io.reading.records import Call, Layer, Network, Reference, Variable, leaves
from birdsonnx.keras_io.reading.step import Step, Unfilled
from birdsonnx.model.contract import LARGEST_SIDE
from birdsonnx.model.metadata import Dropout
from birdsonnx.passes.rewriting import Report
from birdsonnx.passes.uint8_input import NETWORK_INPUT

OPSETS = range(13, 19)
IDLE_KEYWORDS = {"mask": (None,), "training": (None, False)}
"""Arguments of a call that do nothing at these values."""

Results = dict[tuple[str, int], list[Tensor]]
"""What each call of each layer gave."""


def variables_of(layer: Layer, where: str) -> tuple[Variable, ...]:
    """The arrays that a layer holds, in Keras' order.

    Raises:
        ModelError: it is of a class that cannot be read.
    """
    if layer.is_operation or layer.kind == INPUT or layer.network is not None:
        return ()
    if layer.kind in RUN_CODE:
        raise ModelError(
            f"{where}: layer {layer.name!r} is a {layer.kind}, which runs code from the file; not loaded"
        )
    if layer.kind in NOT_READ:
        raise ModelError(f"{where}: layer {layer.name!r} is a {layer.kind}; {NOT_READ[layer.kind]}")
    if layer.kind not in LAYERS:
        raise ModelError(
            f"{where}: layer {layer.name!r} is of the class {layer.kind!r}, which is none that can be read"
            f"{nearest(layer.kind, LAYERS)}"
        )
    return LAYERS[layer.kind].holds(layer.config)


class Drawing:
    """The graph of a network under construction."""

    def __init__(self, weights: Weights, paths: Paths, opset: int, where: str) -> None:
        self.canvas = Canvas(opset)
        self.dropouts: list[Dropout] = []
        self._weights, self._paths, self._where = weights, paths, where

    def network(self, network: Network, inputs: Sequence[Tensor], above: Full = ()) -> list[Tensor]:
        """Draw a model's layers behind tensors; returns what comes out.

        Raises:
            ModelError: a layer cannot be read; names it, and what of it.
        """
        if len(inputs) != len(network.inputs):
            raise ModelError(
                f"{self._where}: model {network.name!r} takes {len(network.inputs)} tensors and gets "
                f"{len(inputs)}"
            )
        results: Results = {
            (end.layer, end.call): [tensor] for end, tensor in zip(network.inputs, inputs, strict=True)
        }
        waiting = [(layer, at) for layer in network.layers for at in range(len(layer.calls))]
        while waiting:
            later = []
            for layer, at in waiting:
                if _is_ready(layer.calls[at], results):
                    results[layer.name, at] = self._call(layer, layer.calls[at], results, above)
                else:
                    later.append((layer, at))
            if len(later) == len(waiting):
                raise ModelError(
                    f"{self._where}: layer {later[0][0].name!r} reads a tensor that nothing gives"
                )
            waiting = later
        return [self._result(end, results) for end in network.outputs]

    def _result(self, end: Reference, results: Results) -> Tensor:
        found = results.get((end.layer, end.call), [])
        if not 0 <= end.tensor < len(found):
            raise ModelError(f"{self._where}: no layer gives the tensor {end.tensor} of {end.layer!r}")
        return found[end.tensor]

    def _call(self, layer: Layer, call: Call, results: Results, above: Full) -> list[Tensor]:
        def given(value: Any) -> Any:
            if isinstance(value, Reference):
                return self._result(value, results)
            if isinstance(value, list | tuple):
                return [given(each) for each in value]
            return value

        arguments = tuple(given(each) for each in call.arguments)
        keywords = {key: given(value) for key, value in call.keywords.items()}
        full = (*above, layer.name)
        try:
            _check_training(layer, keywords)
            if layer.network is not None:
                return self._model(layer, arguments, keywords, full)
            variables_of(layer, self._where)
            return self._layer(layer, arguments, keywords, self._paths[full])
        except Refusal as refusal:
            raise ModelError(f"{self._where}: layer {'/'.join(full)!r} ({layer.kind}): {refusal}") from None
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # A config whose values are of kinds that Keras never writes.
            text = " ".join(str(error).split())[:120]
            raise ModelError(
                f"{self._where}: layer {'/'.join(full)!r} ({layer.kind}): its config cannot be read ({text})"
            ) from None

    def _model(
        self, layer: Layer, arguments: Sequence[Any], keywords: Mapping[str, Any], full: Full
    ) -> list[Tensor]:
        assert layer.network is not None
        if keywords or len(arguments) != 1:
            raise Refusal("a model inside is called on its inputs and nothing else")
        inputs = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
        if not all(isinstance(each, Tensor) for each in inputs):
            raise Refusal("it must be called on tensors")
        return self.network(layer.network, inputs, full)

    def _layer(
        self, layer: Layer, arguments: tuple[Any, ...], keywords: dict[str, Any], path: str
    ) -> list[Tensor]:
        self.canvas.scope = path
        options = Options(layer.config)
        step = Step(
            layer, options, self.canvas, arguments, keywords, self._weights.get(path, {}), self.dropouts
        )
        result = operations.draw(step) if layer.is_operation else LAYERS[layer.kind].draw(step)
        options.finish()
        if step.keywords:
            raise Refusal(f"it is called with {min(step.keywords)!r}, which is not read")
        return result if isinstance(result, list) else [result]


def _is_ready(call: Call, results: Results) -> bool:
    pending: list[Any] = [call.arguments, *call.keywords.values()]
    while pending:
        each = pending.pop()
        if isinstance(each, Reference) and (each.layer, each.call) not in results:
            return False
        if isinstance(each, list | tuple):
            pending += each
    return True


def _check_training(layer: Layer, keywords: dict[str, Any]) -> None:
    """Take out what a call says of masks and training. Keras 3 predicts without training whatever a call
    says; Keras 2 does what it says."""
    if layer.generation == 3:
        keywords.pop("training", None)
    for key, values in IDLE_KEYWORDS.items():
        if key in keywords and any(keywords[key] is value for value in values):
            del keywords[key]
    if keywords.get("training") is not None:
        raise Refusal(
            "it is called with training=True: it would act at random, or by each batch, in prediction"
        )


# --- The whole ------------------------------------------------------------------------------------------


def input_size(network: Network, where: str) -> tuple[int, int, int]:
    """`(height, width, channels)` of the network's one image. Raises ModelError for any other input."""
    shapes = []
    for end in network.inputs:
        layer = next((layer for layer in network.layers if layer.name == end.layer), None)
        config = layer.config if layer is not None else {}
        shape = next((config[key] for key in INPUT_SHAPES if config.get(key) is not None), None)
        shape = Options({"shape": shape}).raw("shape")
        shapes.append(list(shape) if isinstance(shape, list | tuple) else [])
    if len(shapes) != 1 or len(network.outputs) != 1 or len(shapes[0]) != 4:
        raise ModelError(
            f"{where}: needs one image input and one score per class; {len(network.outputs)} output(s), "
            f"inputs {', '.join(map(shown, shapes))}"
        )
    for full, layer in leaves(network):
        if layer.config.get("data_format") == "channels_first":
            raise ModelError(
                f"{where}: layer {full[-1]!r} is channels_first; build the network with "
                "data_format='channels_last' (the weights are the same)"
            )
    height, width, channels = shapes[0][1:]
    fits = all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in (height, width))
    if not fits or type(channels) is not int or channels not in (1, 3):
        raise ModelError(
            f"{where}: the input {shown(shapes[0])} must have a fixed height and width, from 1 to "
            f"{LARGEST_SIDE}, and 1 or 3 channels; build it with an input_shape such as (224, 224, 3)"
        )
    return height, width, channels


def array_shapes(network: Network, paths: Paths, where: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of each array that the network holds, by the path of its layer and its role.

    Raises:
        ModelError: it is no network of one image, or a layer of it cannot be read.
    """
    blank = {path: Unfilled() for path in paths.values()}
    drawing = Drawing(dict(blank), paths, OPSETS.stop - 1, where)
    drawing.network(network, [Tensor(NETWORK_INPUT, input_size(network, where), maps=True)])
    shapes = {}
    for full, layer in leaves(network):
        if held := variables_of(layer, where):
            asked = blank[paths[full]]
            shapes[paths[full]] = {
                each.role: asked[each.role].shape if each.role in asked else () for each in held
            }
    return shapes


def model_of(
    network: Network, weights: Weights, paths: Paths, opset: int, where: str, fold: bool = True
) -> tuple[ModelProto, tuple[Dropout, ...], Report]:
    """The network as a float32 graph from `[batch, channels, height, width]`, its Dropout nodes, and what
    became of its BatchNorms.

    Raises:
        ModelError: it is no network of one image, or a layer of it cannot be read.
    """
    if opset not in OPSETS:
        raise ModelError(f"opset {opset}: choose {OPSETS.start} to {OPSETS.stop - 1}")
    height, width, channels = input_size(network, where)
    drawing = Drawing(weights, paths, opset, where)
    [result] = drawing.network(network, [Tensor(NETWORK_INPUT, (height, width, channels), maps=True)])
    canvas = drawing.canvas
    canvas.scope = network.name
    result = canvas.as_keras(result)
    nodes = _needed(canvas.nodes, result.name)
    if not nodes:
        raise ModelError(f"{where}: the network has no layer that does anything")
    nodes, report = batch_norms.settle(nodes, canvas.constants, result.name, canvas.batch_norms, fold)
    model = ModelProto(producer_name="birdsonnx")
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = min(10, helper.find_min_ir_version_for(list(model.opset_import)))
    graph = model.graph
    graph.name = "birdsonnx"
    graph.node.extend(nodes)
    graph.input.append(_float_value(NETWORK_INPUT, (channels, height, width)))
    graph.output.append(_float_value(result.name, result.shape))
    read = {name for node in nodes for name in node.input}
    for name in [name for name in canvas.constants if name in read]:
        value = np.asarray(canvas.constants.pop(name), order="C")  # gone from here, so that no two are kept
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.initializer.add(name=name, dims=value.shape, data_type=kind, raw_data=value.tobytes())
    left = {node.name for node in nodes}
    return model, tuple(each for each in drawing.dropouts if each.node in left), report


def _needed(nodes: Sequence[NodeProto], output: str) -> list[NodeProto]:
    """The nodes that an output needs, in order."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _float_value(name: str, shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
