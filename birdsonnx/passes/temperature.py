"""Scores divided by a temperature, inside the graph.

`log_softmax(z / T)` names the same class as `log_softmax(z)` for every T above 0, more surely for T below 1,
less surely above. Where the scores `z` come from a linear layer, `z = W x + b`, its weights are divided:
`z / T = (W / T) x + b / T`. What stands between only moves numbers, or keeps a positive factor
(`relu(z / T) = relu(z) / T`, and so do means). An int8 network's scores are `scale (q - zero)`: there the
last scale is divided, which changes no q.

Any other end, and weights or scores that something else reads, stay as they are. Nodes are put in then: a
division before the log_softmax, or behind the network's own log-probabilities, since log-probabilities are
scores of themselves: `log_softmax(log_softmax(z) / T) = log_softmax(z / T)`.
"""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper

from birdsonnx.model.edits import Editor, copy_of, set_constant
from birdsonnx.model.graph import Graph, attribute
from birdsonnx.model.metadata import OUTPUT

SCOPE = "calibration"
DIVISION = f"{SCOPE}/divide"
"""Name of the node that is put in."""

LINEAR = ("Gemm", "MatMul", "Conv")
KEEPING = (
    *("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Identity", "Dropout"),
    *("Relu", "GlobalAveragePool", "ReduceMean"),
)
"""Operations `f` with `f(z / T) = f(z) / T`."""


def divide_scores(model: ModelProto, temperature: float) -> str:
    """Let a network that ends in `log_probs` answer `log_softmax(scores / temperature)`, in place; says in
    words what was divided. Whatever else reads its scores or weights keeps reading the old ones.

    Args:
        model: it ends in `log_probs`.
        temperature: above 0.
    """
    with Editor(model.graph) as graph:
        end = graph.producers[OUTPUT]
        if end.op_type != "LogSoftmax" or not _over_classes(end) or graph.consumers.get(OUTPUT):
            _put_behind(graph, end, temperature)
            return "a division and a log_softmax were put behind its own end"
        divisor = _earlier(graph, end)
        if divisor is not None:
            _set_divided(graph, {divisor: 1 / temperature})
            return "the division before its log_softmax was changed"
        constants = _proportional(graph, end)
        if constants and _set_divided(graph, dict.fromkeys(constants, temperature)):
            return f"{' and '.join(constants)} {'was' if len(constants) == 1 else 'were'} divided by it"
        _put_before(graph, end, temperature)
        return "a division was put before its log_softmax"


def without_division(model: ModelProto) -> ModelProto | None:
    """A copy that answers as before a division was put in; None where there is none: weights that were
    divided stay so."""
    graph = Graph(model.graph)
    divisors = [node.input[1] for node in model.graph.node if node.name == DIVISION and node.op_type == "Div"]
    if not divisors or any(graph.constant(name) is None for name in divisors):
        return None
    copy = copy_of(model)
    for name in divisors:
        set_constant(copy.graph, name, np.ones((), np.float32))
    return copy


def _over_classes(node: NodeProto) -> bool:
    """Whether a log_softmax of `[photos, classes]` is over the classes."""
    return attribute(node, "axis", -1) in (-1, 1)


def _earlier(graph: Editor, end: NodeProto) -> str | None:
    """The divisor that an earlier calibration has put in, if it has."""
    node = graph.producers.get(end.input[0])
    if node is None or node.op_type != "Div" or node.name != DIVISION:
        return None
    return node.input[1] if _is_its_own(graph, node.input[1]) else None


def _proportional(graph: Editor, end: NodeProto) -> list[str]:
    """The constants that all scores are proportional to; none where there are no such, or something else
    reads them or the scores."""
    tensor = end.input[0]
    biases: list[str] = []
    while graph.only_consumer(tensor) is not None:
        node = graph.producers.get(tensor)
        if node is None:
            break
        if node.op_type in LINEAR:
            factors = [name for name in node.input if name in graph.constants]
            inputs = [name for name in node.input if name and name not in graph.constants]
            found = [*factors, *biases]
            is_linear = len(inputs) == 1 and inputs[0] in node.input[:2]
            return found if is_linear and all(_is_its_own(graph, name) for name in found) else []
        if node.op_type == "DequantizeLinear" and not biases:
            return _scale(graph, node)
        if node.op_type == "Add":
            biases += [name for name in node.input if name in graph.constants]
            [tensor, *more] = [name for name in node.input if name not in graph.constants]
            if more:
                break
        elif node.op_type in KEEPING:
            tensor = node.input[0]
        else:
            break
    return []


def _scale(graph: Editor, node: NodeProto) -> list[str]:
    """That of the last scores, in a constant of its own: the rounding before it has the same one."""
    value = graph.constant(node.input[1])
    if value is None or value.dtype != np.float32:
        return []
    if not _is_its_own(graph, node.input[1]):
        name = _free(graph, f"{SCOPE}/scale")
        graph.set_constant(name, value)
        graph.set_input(node, 1, name)
    return [node.input[1]]


def _is_its_own(graph: Editor, name: str) -> bool:
    """Whether a constant is float32, and read once."""
    value = graph.constant(name)
    readers = graph.consumers.get(name, ())
    return value is not None and value.dtype == np.float32 and len(readers) == 1 and name not in graph.outputs


def _set_divided(graph: Editor, divisors: Mapping[str, float]) -> bool:
    """Divide constants, all of them or, where a result would be infinite, none; returns whether it did."""
    divided = {}
    for name, divisor in divisors.items():
        value = graph.constant(name)
        assert value is not None
        with np.errstate(over="ignore"):
            divided[name] = np.asarray(value.astype(np.float64) / divisor, np.float32)
    if not all(np.isfinite(value).all() for value in divided.values()):
        return False
    for name, value in divided.items():
        graph.set_constant(name, value)
    return True


def _put_before(graph: Editor, end: NodeProto, temperature: float) -> None:
    """Divide what a log_softmax reads."""
    name, result = _free(graph, f"{SCOPE}/temperature"), _free(graph, f"{SCOPE}/scores")
    graph.set_constant(name, np.asarray(temperature, np.float32))
    graph.insert_before(end, helper.make_node("Div", [end.input[0], name], [result], name=DIVISION))
    graph.set_input(end, 0, result)


def _put_behind(graph: Editor, end: NodeProto, temperature: float) -> None:
    """Let what the network answered until now be scores."""
    own, name, result = (
        _free(graph, f"{SCOPE}/{what}") for what in ("own_log_probs", "temperature", "scores")
    )
    graph.redirect(OUTPUT, own)
    graph.set_output(end, own)
    graph.set_constant(name, np.asarray(temperature, np.float32))
    graph.append(
        helper.make_node("Div", [own, name], [result], name=DIVISION),
        helper.make_node("LogSoftmax", [result], [OUTPUT], name=f"{SCOPE}/log_softmax", axis=-1),
    )


def _free(graph: Editor, name: str) -> str:
    """The name, or where the graph has it, the next one."""
    taken = {*graph.constants, *graph.producers, *graph.consumers}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
