"""Edits of an ONNX graph: one verb each, for whoever changes a model.

A function changes one thing of a message. An `Editor` is for rewrites that ask questions in between: its
lookups stay right while nodes come and go.
"""

import heapq
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from types import TracebackType
from typing import TypeVar

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import Array, Graph

Message = TypeVar("Message")
"""A ModelProto, NodeProto or TensorProto."""


def copy_of(message: Message) -> Message:
    """The same content in a message of its own."""
    copy = type(message)()
    copy.CopyFrom(message)  # type: ignore[attr-defined] # the package has no types
    return copy


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Give a node's attribute a value, in place of the one that it has."""
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)
    node.attribute.append(helper.make_attribute(name, value))


def set_constant(graph: GraphProto, name: str, value: Array) -> None:
    """Add an initializer, or replace the one of that name."""
    existing = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    _set(existing or graph.initializer.add(), name, value)


def set_inputs(graph: GraphProto, values: Iterable[ValueInfoProto]) -> None:
    """Let a graph have these inputs and no others."""
    del graph.input[:]
    graph.input.extend(values)


def set_outputs(graph: GraphProto, values: Iterable[ValueInfoProto]) -> None:
    """Let a graph have these outputs and no others."""
    del graph.output[:]
    graph.output.extend(values)


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Let a graph have these nodes, in this order, and no others."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def put_first(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Add nodes before all others."""
    set_nodes(graph, [*nodes, *graph.node])


def make_inputs(graph: GraphProto, names: Iterable[str]) -> None:
    """Turn constants into inputs of the same type and shape."""
    wanted = set(names)
    for tensor in [tensor for tensor in graph.initializer if tensor.name in wanted]:
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    kept = [tensor for tensor in graph.initializer if tensor.name not in wanted]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def drop_unused(graph: GraphProto) -> None:
    """Remove nodes and initializers that no output needs, keeping the order of the rest."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    set_nodes(graph, kept[::-1])
    if len(constants) < len(graph.initializer):  # else 100 MB would be copied for nothing: 0.1 s for ResNet50
        del graph.initializer[:]
        graph.initializer.extend(constants)


def sort_nodes(graph: GraphProto) -> None:
    """Put every node after those whose results it reads; where there is a choice, the order stays.

    Raises:
        ModelError: the graph has a cycle.
    """
    nodes = list(graph.node)
    maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    sorter = TopologicalSorter(
        {place: {maker[name] for name in node.input if name in maker} for place, node in enumerate(nodes)}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        names = ", ".join(nodes[place].name or nodes[place].op_type for place in error.args[1][1:])
        raise ModelError(f"the graph has a cycle: {names}") from None
    ready: list[int] = []
    order: list[int] = []
    while sorter.is_active():
        for place in sorter.get_ready():
            heapq.heappush(ready, place)
        order.append(heapq.heappop(ready))
        sorter.done(order[-1])
    if order != sorted(order):
        set_nodes(graph, [nodes[place] for place in order])


class Editor(Graph):
    """A graph that is being edited, in a `with` block: every lookup knows of every edit.

    The list of nodes is written once, at the end of the block, and not at all where an exception ends it or
    nodes neither came nor went: hundreds of edits cost as much as one.
    """

    def __init__(self, proto: GraphProto) -> None:
        super().__init__(proto)
        self._nodes = list(proto.node)
        self._removed: set[int] = set()
        self._first: list[NodeProto] = []
        self._last: list[NodeProto] = []
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}

    def __enter__(self) -> "Editor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        others = self._first or self._last or self._before or self._after
        if kind is None and (self._removed or others):
            set_nodes(self.proto, self._in_order([*self._first, *self._nodes, *self._last]))

    def _in_order(self, nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
        for node in nodes:
            yield from self._in_order(self._before.get(id(node), ()))
            if id(node) not in self._removed:
                yield node
            yield from self._in_order(self._after.get(id(node), ()))

    def nodes(self) -> Iterator[NodeProto]:
        """The nodes that the graph had at first, without those that are removed meanwhile."""
        return (node for node in self._nodes if id(node) not in self._removed)

    def nodes_backwards(self) -> Iterator[NodeProto]:
        """The same, the last one first."""
        return (node for node in reversed(self._nodes) if id(node) not in self._removed)

    # --- What a node reads and makes ------------------------------------------------------------------

    def set_constant(self, name: str, value: Array) -> None:
        """Add an initializer, or replace the one of that name."""
        if name not in self.constants:
            self.constants[name] = self.proto.initializer.add()
        _set(self.constants[name], name, value)

    def set_input(self, node: NodeProto, index: int, name: str) -> None:
        """Let a node read another tensor; an index beyond its inputs adds one."""
        node.input.extend([""] * (index + 1 - len(node.input)))
        self._forget(node, node.input[index])
        node.input[index] = name
        self.consumers.setdefault(name, []).append(node)

    def set_output(self, node: NodeProto, name: str) -> None:
        """Let a node's first result have another name."""
        self._forget_maker(node)
        node.output[0] = name
        self.producers.update(dict.fromkeys(node.output, node))

    def redirect(self, old: str, new: str) -> None:
        """Let every node that reads the tensor `old` read `new`."""
        for node in self.consumers.pop(old, []):
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new
                    self.consumers.setdefault(new, []).append(node)

    # --- Nodes that come and go -----------------------------------------------------------------------

    def remove(self, *nodes: NodeProto) -> None:
        """Take nodes out of the graph."""
        for node in nodes:
            self._removed.add(id(node))
            for name in node.input:
                self._forget(node, name)
            self._forget_maker(node)

    def bypass(self, node: NodeProto) -> None:
        """Take out a node that changes nothing: who reads its result reads its first input instead.

        Raises:
            ValueError: its result is an output of the graph, which would have nothing to make it.
        """
        if node.output[0] in self.outputs:
            raise ValueError(f"{node.output[0]} is an output of the graph")
        self.remove(node)
        self.redirect(node.output[0], node.input[0])

    def replace(self, node: NodeProto, *new: NodeProto) -> None:
        """Put nodes in the place of one."""
        self.remove(node)
        self.insert_before(node, *new)

    def insert_before(self, node: NodeProto, *new: NodeProto) -> None:
        """Add nodes directly before one."""
        self._before.setdefault(id(node), []).extend(new)
        self._look_up(new)

    def insert_after(self, node: NodeProto, *new: NodeProto) -> None:
        """Add nodes directly after one."""
        self._after.setdefault(id(node), []).extend(new)
        self._look_up(new)

    def insert_first(self, *new: NodeProto) -> None:
        """Add nodes before all others."""
        self._first.extend(new)
        self._look_up(new)

    def append(self, *new: NodeProto) -> None:
        """Add nodes after all others."""
        self._last.extend(new)
        self._look_up(new)

    def _look_up(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            self.producers.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def _forget_maker(self, node: NodeProto) -> None:
        for name in node.output:
            if name in self.producers and self.producers[name] is node:
                del self.producers[name]

    def _forget(self, reader: NodeProto, name: str) -> None:
        """One of the times that a node reads a tensor, if it does."""
        readers = self.consumers.get(name, [])
        place = next((place for place, node in enumerate(readers) if node is reader), None)
        if place is not None:
            del readers[place]


def _set(tensor: TensorProto, name: str, value: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), name))
