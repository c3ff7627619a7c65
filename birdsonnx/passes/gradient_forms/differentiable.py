"""Which operations have a gradient in ONNX Runtime, and in which forms it is right."""

from collections.abc import Collection

import numpy as np
from onnx import NodeProto, TensorProto

from birdsonnx.model.graph import Graph, attribute, pads_are_given

DIFFERENTIABLE = frozenset(
    [
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Dropout",
        "Erf",
        "Exp",
        "Flatten",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "Pad",
        "Pow",
        "Reciprocal",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operations whose gradients were compared with finite differences; `check` says in which forms. A
Dropout is a product with a mask then. No others: some gradients of the runtime end the process (AveragePool),
some do not exist (BatchNormalization, Elu, HardSigmoid, Resize, Sum …)."""

NO_GRADIENT = "has no gradient in ONNX Runtime"


def check(node: NodeProto, graph: Graph, trained: Collection[str]) -> str | None:
    """Why a node cannot be trained through, or None. `trained` are the tensors that depend on a trained
    weight."""
    if node.op_type not in DIFFERENTIABLE:
        return NO_GRADIENT
    return None if _in_a_form(node, graph, trained) else f"{NO_GRADIENT} in this form"


def _in_a_form(node: NodeProto, graph: Graph, trained: Collection[str]) -> bool:
    """Whether the gradient of an operation is right for a node's attributes and constants. Elsewhere it is
    wrong without a word (Conv, MaxPool, Split) or an error of the runtime (the others)."""
    match node.op_type:
        case "Cast":
            return bool(attribute(node, "to") == TensorProto.FLOAT)
        case "Conv":
            return pads_are_given(node)
        case "Gather":
            return node.input[0] in trained and node.input[1] in graph.constants
        case "MatMul":
            return all(len(graph.constants[name].dims) > 1 for name in node.input if name in graph.constants)
        case "Max" | "Min":
            return len(node.input) == 2
        case "MaxPool":
            return not attribute(node, "storage_order", 0)
        case "Pad":
            return attribute(node, "mode", b"constant") == b"constant" and len(node.input) < 4
        case "Pow":
            return node.input[1] not in trained
        case "ReduceSum":
            return not attribute(node, "noop_with_empty_axes", 0)
        case "Slice":
            steps = graph.constant(node.input[4]) if len(node.input) > 4 else np.ones(1)
            return steps is not None and bool((steps > 0).all())
        case "Split":
            return all(name in graph.consumers for name in node.output)
        case "Transpose":
            return attribute(node, "perm") is not None
    return True
