"""The end of the graph: log-probabilities, of whichever scores the network ends in.

With scores `s`, `softmax(s) = exp(s) / sum(exp(s))`, so that a network that ends in a softmax, in a
log_softmax or in `s` itself names the same classes in the same order; `log_softmax(s)` gives the logarithm of
its probabilities and stays finite where these are 0 in float32. What follows the softmax and only changes the
layout (a Flatten) may as well come before it: the softmax is of a photo's classes in either.

Other networks end in probabilities too: in the mean of several softmaxes, or in a mean over the places of a
photo. Operators do not tell, so what follows the last sums is run on made-up sums: whichever these are,
probabilities add up to 1, log-probabilities do so as powers of e, and plain scores take any sign and size.
"""

from collections.abc import Iterator
from enum import Enum

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.edits import Editor, set_outputs
from birdsonnx.model.graph import Array, Graph, part_of, shapes_per_photo
from birdsonnx.model.metadata import OUTPUT
from birdsonnx.passes.rewriting import Report, apply
from birdsonnx.runtime.sessions import Session

LAYOUT = ("Reshape", "Squeeze", "Flatten", "Transpose", "Identity")

SOFTMAX = ("Softmax", "LogSoftmax")

SUMS = ("Gemm", "MatMul", "Conv", "ConvTranspose")
"""Their results can have any sign and size."""

SMALL = (1.0, 10.0)
"""Deviations of the made-up sums that tell probabilities."""
LARGE = 1e6
"""Deviation of those that tell scores."""
BEYOND = 10.0
"""Scores are larger than this, and smaller than its negative, where sums are large."""
PHOTOS = 4
CLOSE = 1e-3
"""Of a sum of thousands of float32 probabilities, to 1."""
SMALLEST = np.array(np.finfo(np.float32).tiny)
"""What float32 holds as 0 has no logarithm; that of this is -87.3."""


class Ending(Enum):
    """What a network answers; log-probabilities count as scores. The value names the tensor."""

    PROBABILITIES = "probabilities"
    SCORES = "logits"


class EndInLogProbs:
    """Looks at the graph's one output; `ending` is what it holds, None where these are no class scores."""

    done = "ends in log_probs"
    subject = "output"

    def __init__(self, ending: Ending | None) -> None:
        self.ending = ending

    def candidates(self, graph: Editor) -> Iterator[ValueInfoProto]:
        [output] = graph.proto.output
        yield output

    def check(self, graph: Editor, output: ValueInfoProto) -> str | None:
        if self.ending is not None:
            return None
        last = _maker(graph, output.name)
        if last is not None and last.op_type in SOFTMAX:
            return f"the network ends in a {last.op_type} that is not over all of its classes"
        ends = "its own input" if last is None else last.op_type
        return f"the network ends in {ends}; a classifier ends in softmax, log_softmax or plain scores"

    def rewrite(self, graph: Editor, output: ValueInfoProto) -> int:
        scores, ending = output.name, self.ending
        last = _maker(graph, scores)
        assert last is not None
        assert ending is not None
        if last.op_type in SOFTMAX:
            ending = Ending.SCORES
            if last.output[0] == scores:
                scores = last.input[0]
            graph.remove(last)
            graph.redirect(last.output[0], last.input[0])
        if scores == output.name:
            scores = ending.value
            graph.set_output(graph.producers[output.name], scores)
        if ending is Ending.SCORES:
            graph.append(helper.make_node("LogSoftmax", [scores], [OUTPUT], name="log_softmax", axis=-1))
        else:
            graph.set_constant("smallest", SMALLEST)
            graph.append(helper.make_node("Max", [scores, "smallest"], ["positive"], name="positive"))
            graph.append(helper.make_node("Log", ["positive"], [OUTPUT], name="log"))
        classes = output.type.tensor_type.shape.dim[-1].dim_value
        set_outputs(
            graph.proto, [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])]
        )
        return 1


def end_in_log_probs(model: ModelProto) -> Report:
    """Let a classifier end in `log_probs`, float32 `[batch, classes]`, in place.

    Raises:
        ModelError: the network ends in anything else, so that its outputs are no class scores.
    """
    report = apply(EndInLogProbs(ending_of(model)), model.graph)
    for reason in report.declined:
        raise ModelError(reason)
    return report


def ending_of(model: ModelProto) -> Ending | None:
    """What a network answers, by what follows its last sums; None where these are no class scores."""
    end = _after_the_last_sums(model)
    if end is None:
        return None
    session = Session(end.SerializeToString())
    small = np.concatenate([_answers(session, size) for size in SMALL])
    if np.isfinite(small).all():
        if small.min() >= 0 and _is_one(small.sum(axis=1)):
            return Ending.PROBABILITIES
        if small.max() <= CLOSE and _is_one(np.exp(small).sum(axis=1)):
            return Ending.SCORES
    large = _answers(session, LARGE)
    return Ending.SCORES if large.min() < -BEYOND and large.max() > BEYOND else None


def _answers(session: Session, size: float) -> Array:
    """What the end answers for made-up sums of a size, float64 `[photos, classes]`."""
    generator = np.random.default_rng(0)
    sums = {
        name: (size * generator.standard_normal((PHOTOS, *shape[1:]))).astype(np.float32)
        for name, shape in session.input_shapes.items()
    }
    [answers] = session.run(sums).values()
    return answers.reshape(len(answers), -1).astype(np.float64)


def _is_one(sums: Array) -> bool:
    return bool(np.abs(sums - 1).max() <= CLOSE)


def _after_the_last_sums(model: ModelProto) -> ModelProto | None:
    """The graph's end as a model of its own, from the results of its last sums; None where it has none."""
    graph = Graph(model.graph)
    shapes = shapes_per_photo(model)
    output = model.graph.output[0].name
    sums: list[ValueInfoProto] = []
    seen: set[str] = set()
    wanted = [output]
    while wanted:
        tensor = wanted.pop()
        if tensor in seen or tensor in graph.constants or not tensor:
            continue
        seen.add(tensor)
        node = graph.producers.get(tensor)
        if node is not None and node.op_type not in SUMS:
            wanted.extend(node.input)
        elif node is not None and tensor in shapes:
            shape = ["batch", *shapes[tensor]]
            sums.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape))
        else:
            return None
    return part_of(model, output, sums)


def _maker(graph: Graph, tensor: str) -> NodeProto | None:
    """The node that computes a tensor, seen through changes of the layout; None for an input."""
    node = graph.producers.get(tensor)
    while node is not None and node.op_type in LAYOUT:
        node = graph.producers.get(node.input[0])
    return node
