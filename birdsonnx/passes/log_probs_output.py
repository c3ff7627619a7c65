"""The end of the graph: log-probabilities, of whichever scores the network ends in.

With scores `s`, `softmax(s) = exp(s) / sum(exp(s))`, so that a network that ends in a softmax, in a
log_softmax or in `s` itself names the same classes in the same order; `log_softmax(s)` gives the logarithm of
its probabilities and stays finite where these are 0 in float32. What follows the softmax and only changes the
layout (a Flatten) may as well come before it: the softmax is of a photo's classes in either.
"""

from collections.abc import Iterator

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.edits import Editor, set_outputs
from birdsonnx.model.graph import Graph
from birdsonnx.model.metadata import OUTPUT
from birdsonnx.passes.rewriting import Report, apply

LAYOUT = ("Reshape", "Squeeze", "Flatten", "Transpose", "Identity")

POOLING = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")

SOFTMAX = ("Softmax", "LogSoftmax")


class EndInLogProbs:
    """Looks at the graph's one output."""

    done = "ends in log_probs"
    subject = "output"

    def candidates(self, graph: Editor) -> Iterator[ValueInfoProto]:
        [output] = graph.proto.output
        yield output

    def check(self, graph: Editor, output: ValueInfoProto) -> str | None:
        last = _maker(graph, output.name, LAYOUT)
        if last is not None and (last.op_type in SOFTMAX or _gives_scores(graph, last)):
            return None
        ends = "its own input" if last is None else last.op_type
        return f"the network ends in {ends}; a classifier ends in softmax, log_softmax or plain scores"

    def rewrite(self, graph: Editor, output: ValueInfoProto) -> int:
        scores = output.name
        last = _maker(graph, scores, LAYOUT)
        assert last is not None
        if last.op_type in SOFTMAX:
            if last.output[0] == scores:
                scores = last.input[0]
            graph.remove(last)
            graph.redirect(last.output[0], last.input[0])
        if scores == output.name:
            scores = "logits"
            graph.set_output(graph.producers[output.name], scores)
        classes = output.type.tensor_type.shape.dim[-1].dim_value
        graph.append(helper.make_node("LogSoftmax", [scores], [OUTPUT], name="log_softmax", axis=-1))
        set_outputs(
            graph.proto, [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])]
        )
        return 1


def end_in_log_probs(proto: GraphProto) -> Report:
    """Let a softmax, log_softmax or linear head end in `log_probs`, float32 `[batch, classes]`.

    Raises:
        ModelError: the network ends in anything else, so that its outputs are no class scores.
    """
    report = apply(EndInLogProbs(), proto)
    for reason in report.declined:
        raise ModelError(reason)
    return report


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
        return pooled is not None and pooled.op_type not in (*SOFTMAX, "Sigmoid")
    if node.op_type in ("Mul", "Div", "Sub"):  # a temperature; x * sigmoid(x) is an activation
        return any(name in graph.constants for name in node.input)
    return node.op_type in ("Gemm", "MatMul", "Conv", "Add")
