"""Small maps of the photos of a run, side by side in one map that is as many times as wide.

The runtime computes a convolution photo by photo. At the end of a network maps are small (7 x 7) and weights
many: each photo reads all of them again (9 MB for a 3 x 3 convolution of 512 channels, more than a core's
cache), and rows of 7 do not fill the kernels' blocks of columns. So the photos share a map in which their
columns alternate: column c of photo p of n lies at `n c + p`. The left neighbour of that column is
`n (c - 1) + p`, which is n columns away: a convolution with a dilation of n columns, and with n times the
padding, gives each photo what it gives it alone. The padding at both ends serves all photos, and no zeros
are needed between them.

Equal in value: int8 to the bit, float32 up to the order of sums (2e-6 of ResNet50's log-probabilities).
Measured on 4 or 8 photos, both cores busy: ResNet50 1.03 to 1.05 x in float32, 1.04 x in int8, 1.01 to 1.02 x
in int8 with its long sums on AMX; EfficientNetB0 1.04 x, MobileNetV2 and NASNetMobile 1.00 x.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper, shape_inference

from birdsonnx.model.edits import Editor, copy_of, drop_unused, set_attribute
from birdsonnx.model.graph import Graph, integers, pads_are_given, without_weights
from birdsonnx.passes.rewriting import Report
from birdsonnx.passes.strides import POINTWISE

WIDEST = 7
"""Of the maps, in columns. Rows of 8 fill the float32 kernels by themselves (InceptionV3: 0.98 x); at 14 x 14
float32 gains nothing more, and int8 loses (0.93 x)."""
LEAST_CONVOLUTIONS = 2
"""Wider than 1 x 1, in a row: to lay maps side by side and take them apart again costs what one of them
gains."""
TOO_FEW = "too few convolutions wider than 1 x 1 in a row"
UNLIKELY_BATCH = 9973
"""A dimension of this size is the batch."""
BINARY = frozenset(("Add", "Mul", "Sub"))

Shapes = dict[str, tuple[int, ...]]
Nodes = dict[str, NodeProto]
"""By the name of their one output."""


def lay_side_by_side(model: ModelProto, photos: int) -> Report:
    """Let runs of exactly `photos` photos compute their small maps as one, in place.

    The batch of input and output is fixed then; nothing changes where no part of the graph gains by it. The
    report counts convolutions that moved, and parts of the graph that did not.
    """
    shapes = _shapes_per_photo(model)
    inside: Nodes = {}
    declined: Counter[str] = Counter()
    with Editor(model.graph) as graph:
        for part in _connected(graph, _inside(graph, shapes)):
            reason = check(graph, part)
            if reason is None:
                inside |= part
            else:
                declined[reason] += 1
        if inside:  # all parts in one walk: what two of them read is moved once, before the first reader
            _Rewriting(graph, shapes, inside, photos).run()
    if inside:
        _fix_batch(model, photos)
        drop_unused(model.graph)
    moved = sum(node.op_type == "Conv" for node in inside.values())
    return Report("side by side", "small maps", moved, declined)


def check(graph: Graph, part: Nodes) -> str | None:
    """Why it does not pay to lay the maps of nodes that are connected with each other side by side."""
    kernels = [_source(graph, node.input[1]) for node in part.values() if node.op_type == "Conv"]
    wide = sum(max(graph.constants[kernel].dims[2:]) > 1 for kernel in kernels)
    return None if wide >= LEAST_CONVOLUTIONS else TOO_FEW


def _fix_batch(model: ModelProto, photos: int) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = photos
    del model.graph.value_info[:]  # they are for another batch, or another layout


def _shapes_per_photo(model: ModelProto) -> Shapes:
    """What follows the batch in the shapes of tensors, other than outputs, that have one row per photo."""
    probe = without_weights(model)
    _fix_batch(probe, UNLIKELY_BATCH)
    inferred = shape_inference.infer_shapes(probe, data_prop=True).graph
    dims = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }
    return {name: tuple(each[1:]) for name, each in dims.items() if each[:1] == [UNLIKELY_BATCH]}


def _inside(graph: Graph, shapes: Shapes) -> Nodes:
    """Convolutions on small maps, and what follows them value by value."""
    inside: Nodes = {}
    for node in graph.proto.node:
        name = node.output[0]
        is_small = len(node.output) == 1 and _is_small(shapes.get(name))
        if is_small and (_is_convolution(graph, node, shapes) or _follows(graph, node, shapes, inside)):
            inside[name] = node
    return inside


def _is_small(shape: Sequence[int] | None) -> bool:
    return shape is not None and len(shape) == 3 and 1 < shape[2] <= WIDEST


def _is_convolution(graph: Graph, node: NodeProto, shapes: Shapes) -> bool:
    return (
        node.op_type == "Conv"
        and pads_are_given(node)
        and integers(node, "strides", 1) == [1, 1]
        and _is_small(shapes.get(node.input[0]))
        and all(_is_given(graph, name) for name in node.input[1:])
    )


def _is_given(graph: Graph, name: str) -> bool:
    """Whether a tensor is a constant, or one that is quantised."""
    producer = graph.producers.get(name)
    if producer is not None and producer.op_type == "DequantizeLinear":
        name = producer.input[0]
    return name in graph.constants


def _follows(graph: Graph, node: NodeProto, shapes: Shapes, inside: Nodes) -> bool:
    """Whether a node maps values of small maps one by one, some of them from inside."""
    if node.op_type == "QuantizeLinear":
        return node.input[0] in inside
    if node.op_type not in POINTWISE | BINARY:
        return False
    values = node.input if node.op_type in BINARY else node.input[:1]
    made = [name for name in values if name not in graph.constants]
    constants = [graph.constants[name].dims for name in node.input if name in graph.constants]
    return (
        len(made) + len(constants) == sum(map(bool, node.input))
        and all(shapes.get(name) == shapes[node.output[0]] for name in made)
        and all(dims[-2:].count(1) == len(dims[-2:]) for dims in constants)  # a number, or one per channel
        and any(_source(graph, name) in inside for name in made)
    )


def _source(graph: Graph, name: str) -> str:
    """The tensor itself, or the quantised one that it was made of."""
    producer = graph.producers.get(name)
    return producer.input[0] if producer is not None and producer.op_type == "DequantizeLinear" else name


def _connected(graph: Graph, inside: Nodes) -> list[Nodes]:
    """These nodes, divided into parts that read nothing of each other."""
    above = {name: name for name in inside}

    def root(name: str) -> str:
        while above[name] != name:
            name = above[name]
        return name

    for name, node in inside.items():
        for source in (_source(graph, tensor) for tensor in node.input):
            if source in inside:
                above[root(source)] = root(name)
    parts: dict[str, Nodes] = {}
    for name, node in inside.items():
        parts.setdefault(root(name), {})[name] = node
    return list(parts.values())


class _Rewriting:
    """One walk over the nodes, in order; those inside read and make maps side by side."""

    def __init__(self, graph: Editor, shapes: Shapes, inside: Nodes, photos: int) -> None:
        self._graph, self._shapes, self._inside, self._photos = graph, shapes, inside, photos
        self._sources = {name: _source(graph, name) for name in graph.producers}
        self._made: dict[tuple[str, str], str] = {}

    def run(self) -> None:
        for node in self._graph.nodes():
            inside = node.output[0] in self._inside
            form = self._beside if inside else self._apart
            for index, name in enumerate(node.input):
                self._graph.set_input(node, index, form(name, node))
            if inside and node.op_type == "Conv":
                self._widen(node)

    def _widen(self, conv: NodeProto) -> None:
        top, left, bottom, right = integers(conv, "pads", 0, 4)
        down, across = integers(conv, "dilations", 1)
        set_attribute(conv, "pads", [top, left * self._photos, bottom, right * self._photos])
        set_attribute(conv, "dilations", [down, across * self._photos])

    def _beside(self, name: str, reader: NodeProto) -> str:
        """A tensor as a reader inside needs it."""
        if name in self._inside or _is_given(self._graph, name) or not name:
            return name
        if (name, "beside") in self._made:
            return self._made[name, "beside"]
        producer = self._graph.producers.get(name)
        if producer is not None and producer.op_type == "DequantizeLinear":  # moved as bytes
            like = copy_of(producer)
            like.input[0] = self._beside(self._sources[name], reader)
            return self._add(name, "beside", reader, like)
        channels, height, width = self._shapes[name]
        wide = [1, height, width * self._photos, channels]
        # By way of channels last, in which int8 is computed: whole pixels are moved.
        columns = self._add(name, "columns", reader, _transpose(name, [2, 3, 0, 1]))
        row = self._add(name, "row", reader, self._reshape(columns, wide))
        return self._add(name, "beside", reader, _transpose(row, [0, 3, 1, 2]))

    def _apart(self, name: str, reader: NodeProto) -> str:
        """A tensor as a reader outside needs it."""
        if name not in self._inside:
            return name
        if (name, "apart") in self._made:
            return self._made[name, "apart"]
        channels, height, width = self._shapes[name]
        split = self._reshape(name, [channels, height, width, self._photos])
        columns = self._add(name, "split", reader, split)
        return self._add(name, "apart", reader, _transpose(columns, [3, 0, 1, 2]))

    def _add(self, name: str, what: str, reader: NodeProto, node: NodeProto) -> str:
        made = f"{name}/{what}"
        node.name = made
        node.output[:] = [made]
        self._graph.insert_before(reader, node)
        self._made[name, what] = made
        return made

    def _reshape(self, name: str, shape: list[int]) -> NodeProto:
        constant = f"side_by_side/{'x'.join(map(str, shape))}"
        self._graph.set_constant(constant, np.array(shape, np.int64))
        return helper.make_node("Reshape", [name, constant], [""])


def _transpose(name: str, order: list[int]) -> NodeProto:
    return helper.make_node("Transpose", [name], [""], perm=order)
