"""The graph as Graphviz reads it, read back by a small parser of the language's quoted identifiers."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from birdsonnx.model import dot
from tests.tiny import tiny_model

QUOTED = r'"((?:[^"\\]|\\.)*)"'


@dataclass
class Drawing:
    """What a DOT text says: attributes of nodes by name, and of edges by their two ends."""

    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def labelled(self, start: str) -> dict[str, str]:
        [found] = [node for node in self.nodes.values() if node.get("label", "").startswith(start)]
        return found


def parsed(text: str) -> Drawing:
    """Refuses whatever is not a statement of the subset that is written."""
    first, *statements, last = text.splitlines()
    assert re.fullmatch(rf"digraph {QUOTED} {{", first)
    assert last == "}"
    drawing = Drawing()
    for statement in statements:
        match = re.fullmatch(rf"    {QUOTED}(?: -> {QUOTED})?(?: \[(.*)\])?;", statement)
        assert match, statement
        source, target, inside = match[1], match[2], match[3] or ""
        attribute = rf"(\w+)=(?:{QUOTED}|(\d+))"
        assert re.fullmatch(rf"({attribute}(, {attribute})*)?", inside), statement
        attributes = {name: quoted or number for name, quoted, number in re.findall(attribute, inside)}
        if target is None:
            assert source not in drawing.nodes
            drawing.nodes[source] = attributes
        else:
            drawing.edges.append((source, target, attributes))
    assert {end for edge in drawing.edges for end in edge[:2]} <= drawing.nodes.keys()
    return drawing


def test_nodes_weights_and_edges():
    graph = tiny_model().proto.graph
    drawing = parsed(dot.text(graph))
    assert len(drawing.nodes) == len(graph.node) + len(graph.input) + len(graph.output)
    label = drawing.labelled("conv2/Conv")["label"]
    assert label == r"conv2/Conv\nConv\nconv2/kernel 24 x 8 x 3 x 3\nconv2/bias 24"
    assert drawing.labelled("pool")["label"] == r"pool\nGlobalAveragePool"
    constants = {tensor.name for tensor in graph.initializer}
    tensors = [name for node in graph.node for name in node.input if name not in constants]
    assert len(drawing.edges) == len(tensors) + len(graph.output)
    assert not any("fillcolor" in node for node in drawing.nodes.values())
    assert not any(attributes for _, _, attributes in drawing.edges)


def test_what_is_trained_and_what_is_kept_are_marked():
    graph = tiny_model().proto.graph
    drawing = parsed(dot.text(graph, {"dense/kernel", "dense/bias"}, {"s"}))
    green = [node["label"] for node in drawing.nodes.values() if node.get("fillcolor") == "lightgreen"]
    assert [label.split(r"\n")[0] for label in green] == ["dense/Gemm"]
    [(source, target, attributes)] = [edge for edge in drawing.edges if edge[2]]
    assert drawing.nodes[source]["label"].startswith("squeeze")
    assert drawing.nodes[target]["label"].startswith("dense/Gemm")
    assert attributes["color"] == "red"


@pytest.mark.parametrize("name", ['a "b"', "back\\slash", "line\nbreak", "Ä; -> {x}", "\\", '"'])
def test_any_name_is_escaped(name):
    graph = helper.make_graph(
        [helper.make_node("Add", [name, "w"], ["y"], name)],
        name,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.float32(1), "w")],
    )
    drawing = parsed(dot.text(graph))
    label = drawing.nodes["node 0"]["label"]
    read = label.replace(r"\n", "\n").replace(r"\"", '"').replace("\\\\", "\\")
    assert read == f"{name}\nAdd\nw scalar"


def test_where_it_is_written():
    assert dot.path_beside("logs/out.classifier.txt") == Path("logs/out.classifier.dot")
    dot.write(Path("new/out.dot"), tiny_model().proto.graph)
    assert [path.name for path in Path("new").iterdir()] == ["out.dot"]
    parsed(Path("new/out.dot").read_text())
