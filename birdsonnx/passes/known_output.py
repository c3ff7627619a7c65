"""The output `known`: how much a photo is like those of the trained classes.

    known = offset + probability max_c log p_c + likeness max_c cos(r, m_c)

`r` are the features of a photo, the input of the last linear layer, each replaced by its root with its sign
(the power normalisation of Perronnin et al. 2010, "Improving the Fisher kernel"), at length 1; `m_c` is the
mean of class c's training photos, at length 1 again; `p_c` are the network's probabilities. The first part
falls for photos that lie between classes, the second for those that lie far from all of them. Which scores
were compared, and how this one came out: docs/unknown.md.

It has constants of its own, a copy of the last layer among them: what is done to the scores later, such as
dividing them by a temperature, does not change it. A network without a last linear layer has the first part
only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.edits import copy_of, drop_unused, set_constant, set_outputs
from birdsonnx.model.graph import Graph, depending_on, opset_of, part_of, shapes_per_photo
from birdsonnx.model.known_part import without_known
from birdsonnx.model.metadata import INPUT, KNOWN, OUTPUT
from birdsonnx.model.model_file import BirdModel

LINEAR = ("Gemm", "MatMul", "Conv")
SMALLEST = 1e-20
"""Sum of a photo's features by which they are divided at least: where all are 0, so is its likeness."""
ARRAY_AXES = 18
"""The opset from which on ReduceMax takes its axes as an input."""


@dataclass(frozen=True)
class Weights:
    """Of the two parts of `known`."""

    probability: float = 0.0
    likeness: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Features:
    """The input of a network's last linear layer."""

    tensor: str
    shape: tuple[int, ...]
    """Of one photo: `(features,)`, or `(channels, height, width)`, of which the means are the features."""


def features_of(model: ModelProto) -> Features | None:
    """What the last linear layer reads; None where a network ends otherwise.

    It is looked for from `log_probs` upwards, through operations that read one computed tensor.
    """
    graph = Graph(model.graph)
    computed = depending_on(model.graph, [INPUT])
    node = graph.producers.get(OUTPUT)
    while node is not None:
        inputs = [name for name in node.input if name in computed]
        if len(inputs) != 1:
            return None
        if node.op_type in LINEAR:
            shape = shapes_per_photo(model).get(inputs[0], ())
            return Features(inputs[0], shape) if len(shape) in (1, 3) else None
        node = graph.producers.get(inputs[0])
    return None


def answering_directions(model: BirdModel) -> BirdModel | None:
    """A network that answers each photo's direction among the features, float32 `[batch, features]` of length
    1 (or 0), in the place of its log-probabilities, so that it opens like any other; None where it has none.
    """
    proto = without_known(model.proto)
    features = features_of(proto)
    if features is None:
        return None
    nodes = _Nodes(proto, "directions")
    direction = nodes.direction(features)
    for node in proto.graph.node:
        node.output[:] = [f"{OUTPUT}/own" if name == OUTPUT else name for name in node.output]
        node.input[:] = [f"{OUTPUT}/own" if name == OUTPUT else name for name in node.input]
    proto.graph.node.extend(nodes.made)
    proto.graph.node.append(helper.make_node("Identity", [direction], [OUTPUT], name=OUTPUT))
    shape = ["batch", features.shape[0]]
    set_outputs(proto.graph, [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)])
    drop_unused(proto.graph)
    metadata = model.metadata.having(classes=None, thresholds=None, known=None)
    return BirdModel(proto, metadata, model.where)


def with_known(
    model: BirdModel, means: npt.NDArray[np.float32] | None, weights: Weights, record: dict[str, object]
) -> BirdModel:
    """The model with the output `known` after `log_probs`, which stays bit for bit; an earlier one goes.

    Args:
        model: is left as it is.
        means: of each class's directions, float32 `[classes, features]`; None: it has no features.
        weights: of the parts.
        record: what its metadata say of it.

    Raises:
        ModelError: it calls another tensor `known`.
    """
    proto = without_known(model.proto)
    graph = proto.graph
    if any(KNOWN in (*node.input, *node.output) for node in graph.node):
        raise ModelError(f"{model.where}: it calls one of its own tensors '{KNOWN}'; rename that layer")
    nodes = _Nodes(proto, "known")
    features = None if means is None else features_of(proto)
    largest = nodes.largest(OUTPUT if features is None else nodes.copied_end(features))
    known = nodes("Mul", largest, nodes.constant("probability", weights.probability))
    if features is None or means is None:
        nodes("Add", known, nodes.constant("offset", weights.offset))
    else:
        nodes("Add", nodes.likeness(features, means, weights), known)
    nodes.made[-1].output[0] = KNOWN
    graph.node.extend(nodes.made)
    graph.output.append(helper.make_tensor_value_info(KNOWN, TensorProto.FLOAT, ["batch"]))
    return BirdModel(proto, model.metadata.having(known=record), model.where)


class _Nodes:
    """Nodes that are made for a graph, under names that nothing in it has."""

    def __init__(self, proto: ModelProto, scope: str) -> None:
        names = [name for node in proto.graph.node for name in (node.name, *node.input, *node.output)]
        while any(name.startswith(f"{scope}/") for name in names):
            scope += "_"
        self._proto, self._scope = proto, scope
        self.made: list[NodeProto] = []

    def __call__(self, operation: str, *inputs: str, **attributes: object) -> str:
        """Make a node; gives the name of its result."""
        name = f"{self._scope}/{operation}_{len(self.made)}"
        self.made.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        name = f"{self._scope}/{name}"
        set_constant(self._proto.graph, name, np.asarray(value, dtype))
        return name

    def direction(self, features: Features) -> str:
        """`sign(x) sqrt(|x| / sum |x|)`: the roots, at length 1."""
        x = features.tensor
        if len(features.shape) > 1:
            x = self("Flatten", self("GlobalAveragePool", x), axis=1)
        sizes = self("Abs", x)
        total = self("ReduceSum", sizes, self.constant("axes", [1], np.int64), keepdims=1)
        shares = self("Div", sizes, self("Max", total, self.constant("smallest", SMALLEST)))
        return self("Mul", self("Sqrt", shares), self("Sign", x))

    def likeness(self, features: Features, means: npt.NDArray[np.float32], weights: Weights) -> str:
        """Of the most alike class, times its weight, with the offset, float32 `[batch]`. The offset goes into
        the sums themselves: cosines differ in the third digit, which would be lost between two operations
        that an engine computes in bf16."""
        kernel = self.constant("means", means.T * np.float32(weights.likeness))
        offsets = self.constant("offset", np.full(len(means), weights.offset))
        return self.largest(self("Gemm", self.direction(features), kernel, offsets))

    def largest(self, rows: str) -> str:
        """Of each row."""
        if opset_of(self._proto) >= ARRAY_AXES:
            return self("ReduceMax", rows, self.constant("axes", [1], np.int64), keepdims=0)
        return self("ReduceMax", rows, axes=[1], keepdims=0)

    def copied_end(self, features: Features) -> str:
        """The log-probabilities once more, by copies of the last layer and of what follows it."""
        given = helper.make_tensor_value_info(features.tensor, TensorProto.FLOAT, None)
        end = part_of(self._proto, OUTPUT, [given]).graph
        renamed = {tensor.name: f"{self._scope}/end/{tensor.name}" for tensor in end.initializer}
        for tensor in end.initializer:
            copy = copy_of(tensor)
            copy.name = renamed[tensor.name]
            self._proto.graph.initializer.append(copy)
        for node in end.node:
            copied = copy_of(node)
            renamed |= {name: f"{self._scope}/end/{name}" for name in node.output if name}
            copied.name = f"{self._scope}/end/{node.name or node.output[0]}"
            copied.input[:] = [renamed.get(name, name) for name in node.input]
            copied.output[:] = [renamed.get(name, name) for name in node.output]
            self.made.append(copied)
        return renamed[OUTPUT]
