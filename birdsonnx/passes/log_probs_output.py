"""The end of the graph: log-probabilities, whatever scores the network ends in."""

from onnx import GraphProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import Graph, redirect, remove
from birdsonnx.model.metadata import OUTPUT

LAYOUT = ("Reshape", "Squeeze", "Flatten", "Transpose", "Identity")

POOLING = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")


def end_in_log_probs(proto: GraphProto) -> None:
    """Let a softmax, log_softmax or linear head end in `log_probs`, float32 `[batch, classes]`.

    Raises:
        ModelError: the network ends in anything else, so that its outputs are no class scores.
    """
    graph = Graph(proto)
    [output] = proto.output
    scores = output.name
    last = _maker(graph, scores, LAYOUT)
    if last is not None and last.op_type in ("Softmax", "LogSoftmax"):
        if last.output[0] == scores:
            scores = last.input[0]
        redirect(proto, last.output[0], last.input[0])
        remove(proto, [last])
    elif last is None or not _gives_scores(graph, last):
        ends = "its own input" if last is None else last.op_type
        raise ModelError(
            f"the network ends in {ends}; a classifier ends in softmax, log_softmax or plain scores"
        )
    if scores == output.name:
        scores = "logits"
        graph.producers[output.name].output[0] = scores
    classes = output.type.tensor_type.shape.dim[-1].dim_value
    proto.node.append(helper.make_node("LogSoftmax", [scores], [OUTPUT], name="log_softmax", axis=-1))
    output.CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))


def _maker(graph: Graph, tensor: str, through: tuple[str, ...]) -> NodeProto | None:
    """The node that computes a tensor, seen through such operations; None for an input."""
    node = graph.producers.get(tensor)
    while node is not None and node.op_type in through:
        node = graph.producers.get(node.input[0])
    return node


def _gives_scores(graph: Graph, node: NodeProto) -> bool:
    """Whether a node's results can be scores of any size: neither squashed nor cut off, nor their mean."""
    if node.op_type in POOLING:
        pooled = _maker(graph, node.input[0], (*LAYOUT, *POOLING))
        return pooled is not None and pooled.op_type not in ("Softmax", "LogSoftmax", "Sigmoid")
    if node.op_type in ("Mul", "Div", "Sub"):  # a temperature; x * sigmoid(x) is an activation
        return any(name in graph.constants for name in node.input)
    return node.op_type in ("Gemm", "MatMul", "Conv", "Add")
