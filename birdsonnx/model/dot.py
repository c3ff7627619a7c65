"""A network's graph as text for Graphviz: what `debug` writes beside the outfile."""

from collections.abc import Collection
from pathlib import Path

from onnx import GraphProto, TensorProto

from birdsonnx import artifacts
from birdsonnx.model.graph import Graph

TRAINED = 'style="filled", fillcolor="lightgreen"'
KEPT = 'color="red", penwidth=3, label="features are kept here", fontcolor="red"'
"""Of edges across the boundary of cached features."""


def path_beside(outfile: str) -> Path:
    """Where the graph of a run goes: its outfile's stem with `.dot`."""
    return Path(outfile).with_suffix(".dot")


def write(
    path: Path, graph: GraphProto, trained: Collection[str] = (), boundary: Collection[str] = ()
) -> None:
    """Write `text` to a file. Raises ArtifactError."""
    artifacts.write_bytes(path, text(graph, trained, boundary).encode(errors="backslashreplace"))


def text(graph: GraphProto, trained: Collection[str] = (), boundary: Collection[str] = ()) -> str:
    """The graph in the DOT language: an ellipse per input and output, a box per node with its name, operation
    and the shapes of its weights, green where one of them is trained.

    Args:
        graph: any.
        trained: names of weights that training changes.
        boundary: names of tensors that are kept of every photo; the edges that carry them are red.
    """
    known = Graph(graph)
    sources = {
        value.name: _quoted(f"input {value.name}")
        for value in graph.input
        if value.name not in known.constants
    }
    lines = [f'{source} [shape="ellipse"]' for source in sources.values()]
    for number, node in enumerate(graph.node):
        sources.update(dict.fromkeys(node.output, _quoted(f"node {number}")))
    for number, node in enumerate(graph.node):
        weights = [known.constants[name] for name in node.input if name in known.constants]
        label = "\n".join((node.name or node.output[0], node.op_type, *map(_weight, weights)))
        style = f", {TRAINED}" if any(weight.name in trained for weight in weights) else ""
        lines.append(f'{_quoted(f"node {number}")} [shape="box", label={_quoted(label)}{style}]')
        lines += [
            _edge(sources[name], _quoted(f"node {number}"), name in boundary)
            for name in node.input
            if name in sources
        ]
    for value in graph.output:
        target = _quoted(f"output {value.name}")
        lines += [f'{target} [shape="ellipse"]', _edge(sources[value.name], target, value.name in boundary)]
    body = "".join(f"    {line};\n" for line in lines)
    return f"digraph {_quoted(graph.name)} {{\n{body}}}\n"


def _edge(source: str, target: str, kept: bool) -> str:
    return f"{source} -> {target}" + (f" [{KEPT}]" if kept else "")


def _weight(tensor: TensorProto) -> str:
    return f"{tensor.name} {' x '.join(map(str, tensor.dims)) or 'scalar'}"


def _quoted(content: str) -> str:
    r"""A quoted DOT identifier; in labels a line break is its `\n`."""
    return '"' + content.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
