"""A graph walked backwards: the gradient of its loss by each weight, by the chain rule."""

from collections.abc import Collection, Mapping, Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.model.edits import copy_of
from birdsonnx.model.graph import Graph, depending_on
from birdsonnx.passes.head_gradients.backward import Backward, Shape
from birdsonnx.passes.head_gradients.rules import RULES, known


def last_unknown(model: ModelProto, weights: Collection[str]) -> NodeProto | None:
    """The last node after one of the weights through which no gradient is known here, or None.

    The layers behind it can be trained without the runtime's builder.
    """
    graph = Graph(model.graph)
    reached = depending_on(model.graph, weights)
    return next(
        (
            node
            for node in reversed(model.graph.node)
            if reached.intersection(node.input) and not known(node, graph)
        ),
        None,
    )


def with_gradients(
    model: ModelProto, loss: str, weights: Sequence[str], shapes: Mapping[str, Shape]
) -> ModelProto:
    """A model that computes `loss` and its gradient by each weight, `<name>_grad`.

    Args:
        model: opset 13 or more; the weights are inputs of its graph, and every node after them is known
            (`last_unknown`).
        loss: the scalar output to differentiate.
        weights: names of the float32 inputs to differentiate by.
        shapes: of all tensors, for a batch of more than one photo.
    """
    reached = depending_on(model.graph, weights)
    back = Backward(Graph(model.graph), shapes)
    found: dict[str, list[str]] = {loss: [back.constant(1.0)]}
    for node in reversed(model.graph.node):
        if not reached.intersection(node.input) or not found.keys() & set(node.output):
            continue
        gradients = [_total(back, found.pop(name, ()), name) for name in node.output]
        for place, name in enumerate(node.input):
            if name in reached:
                found.setdefault(name, []).append(RULES[node.op_type](back, node, gradients, place))
    totals = {name: _total(back, found.get(name, ()), name) for name in weights}

    proto = copy_of(model)
    proto.graph.node.extend(_named(back.nodes, {f"{name}_grad": total for name, total in totals.items()}))
    proto.graph.initializer.extend(back.constants.values())
    proto.graph.output.extend(
        helper.make_tensor_value_info(f"{name}_grad", TensorProto.FLOAT, shapes[name]) for name in weights
    )
    return proto


def _total(back: Backward, gradients: Sequence[str], of: str) -> str:
    """The sum of a tensor's gradients, one from each node that reads it."""
    if not gradients:
        return back("Mul", of, 0.0)
    total, *others = gradients
    for other in others:
        total = back("Add", total, other)
    return total


def _named(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> list[NodeProto]:
    """The nodes with results of these names: where a node makes a result for nothing else it writes there
    itself, in the memory that the caller bound, and no copy is made."""
    readers = [name for node in nodes for name in node.input] + list(names.values())
    makers = {node.output[0]: node for node in nodes}
    copies = []
    for name, result in names.items():
        if result in makers and readers.count(result) == 1:
            makers[result].output[0] = name
        else:
            copies.append(helper.make_node("Identity", [result], [name], name=name))
    return [*nodes, *copies]
