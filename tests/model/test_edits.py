"""Edits of a graph: the graph that results, and what its answers are."""

import copy

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.model import edits
from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import Graph
from tests.graphs import answer, diamond, graph_of, operators

node = helper.make_node
VALUE = np.array([[-3, -1, 0, 2]], np.float32)


def lookups(graph: Graph) -> tuple[dict, dict, dict]:
    """What a view knows, by names and operators."""
    return (
        {name: maker.op_type for name, maker in graph.producers.items()},
        {
            name: sorted(reader.op_type for reader in readers)
            for name, readers in graph.consumers.items()
            if readers
        },
        {name: graph.constant(name).tolist() for name in graph.constants},
    )


class TestMessages:
    def test_a_copy_is_its_own(self):
        model = diamond()
        fresh = edits.copy_of(model)
        assert isinstance(fresh, ModelProto)
        assert fresh == model
        fresh.graph.node[0].op_type = "Abs"
        assert model == diamond()

    def test_set_constant_adds_or_replaces(self):
        proto = diamond().graph
        edits.set_constant(proto, "k", np.full(4, 2, np.float32))
        edits.set_constant(proto, "new", np.arange(3).T)
        values = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in proto.initializer}
        assert values == {"k": [2] * 4, "unused": [0, 0], "new": [0, 1, 2]}

    def test_set_attribute_adds_or_replaces(self):
        leaky = node("LeakyRelu", ["x"], ["y"], alpha=0.5)
        edits.set_attribute(leaky, "alpha", 0.25)
        edits.set_attribute(leaky, "beta", [1, 2])
        assert [(item.name, helper.get_attribute_value(item)) for item in leaky.attribute] == [
            ("alpha", 0.25),
            ("beta", [1, 2]),
        ]

    def test_nodes_first(self):
        model = diamond()
        model.graph.node[0].input[0] = "double"
        edits.put_first(model.graph, [node("Add", ["x", "x"], ["double"])])
        relu = np.maximum(2 * VALUE, 0)
        np.testing.assert_array_equal(answer(model, VALUE), np.abs(relu) - relu + 1)

    def test_constants_become_inputs(self):
        model = diamond()
        edits.make_inputs(model.graph, ["k"])
        assert [tensor.name for tensor in model.graph.initializer] == ["unused"]
        [_, k] = model.graph.input
        assert k == helper.make_tensor_value_info("k", 1, [4])

    def test_drop_unused_keeps_what_the_output_needs(self):
        model = diamond()
        before = answer(model, VALUE)
        edits.drop_unused(model.graph)
        assert operators(model.graph) == ["Relu", "Neg", "Abs", "Sum"]
        assert [tensor.name for tensor in model.graph.initializer] == ["k"]
        np.testing.assert_array_equal(answer(model, VALUE), before)


class TestOrder:
    def test_an_order_that_is_right_stays(self):
        model = diamond()
        edits.sort_nodes(model.graph)
        assert model == diamond()

    @pytest.mark.parametrize("seed", range(10))
    def test_makers_come_before_readers(self, seed):
        model = diamond()
        before = answer(model, VALUE)
        order = np.random.default_rng(seed).permutation(len(model.graph.node))
        edits.set_nodes(model.graph, [model.graph.node[place] for place in order])
        edits.sort_nodes(model.graph)
        np.testing.assert_array_equal(answer(model, VALUE), before)

    def test_where_there_is_a_choice_the_first_comes_first(self):
        nodes = [node("Neg", ["e"], ["n"]), node("Abs", ["x"], ["a"]), node("Exp", ["x"], ["e"])]
        model = graph_of([*nodes, node("Sum", ["n", "a"], ["y"])], {}, [2], [2])
        edits.sort_nodes(model.graph)
        assert operators(model.graph) == ["Abs", "Exp", "Neg", "Sum"]

    def test_a_circle_is_refused(self):
        nodes = [node("Neg", ["e"], ["n"], "minus"), node("Exp", ["n"], ["e"], "power")]
        model = graph_of([*nodes, node("Sum", ["n", "x"], ["y"])], {}, [2], [2])
        with pytest.raises(ModelError, match=r"^the graph has a cycle: (minus, power|power, minus)$"):
            edits.sort_nodes(model.graph)


def double(graph: Editor) -> None:
    """A node after the Relu, which all its readers read instead."""
    relu = graph.producers["a"]
    graph.redirect("a", "twice")
    graph.insert_after(relu, node("Add", ["a", "a"], ["twice"]))


EDITS = {
    "nothing": (lambda graph: None, lambda relu: np.abs(relu) - relu + 1),
    "redirect": (lambda graph: graph.redirect("b", "c"), lambda relu: 2 * np.abs(relu) + 1),
    "bypass": (lambda graph: graph.bypass(graph.producers["b"]), lambda relu: np.abs(relu) + relu + 1),
    "set_constant": (
        lambda graph: graph.set_constant("k", np.full(4, 7, np.float32)),
        lambda relu: np.abs(relu) - relu + 7,
    ),
    "set_input": (
        lambda graph: graph.set_input(graph.producers["y"], 0, "c"),
        lambda relu: 2 * np.abs(relu) + 1,
    ),
    "set_input beyond the last": (
        lambda graph: graph.set_input(graph.producers["y"], 3, "a"),
        lambda relu: np.abs(relu) - relu + 1 + relu,
    ),
    "insert_before": (
        lambda graph: (
            graph.insert_before(graph.producers["y"], node("Exp", ["b"], ["e"])),
            graph.set_input(graph.producers["y"], 0, "e"),
        ),
        lambda relu: np.abs(relu) + np.exp(-relu) + 1,
    ),
    "insert_after": (double, lambda relu: np.abs(2 * relu) - 2 * relu + 1),
    "insert_first": (
        lambda graph: (graph.insert_first(node("Exp", ["x"], ["e"])), graph.redirect("c", "e")),
        lambda relu: np.exp(VALUE) - relu + 1,
    ),
    "append": (
        lambda graph: (
            graph.set_output(graph.producers["y"], "sum"),
            graph.append(node("Neg", ["sum"], ["y"])),
        ),
        lambda relu: relu - np.abs(relu) - 1,
    ),
    "replace by two": (
        lambda graph: graph.replace(
            graph.producers["c"], node("Exp", ["a"], ["e"]), node("Add", ["e", "a"], ["c"])
        ),
        lambda relu: np.exp(relu) + relu - relu + 1,
    ),
    "replace what was put in place": (
        lambda graph: (
            graph.replace(graph.producers["c"], node("Exp", ["a"], ["c"], "new")),
            graph.replace(graph.producers["c"], node("Tanh", ["a"], ["c"])),
        ),
        lambda relu: np.tanh(relu) - relu + 1,
    ),
    "remove": (
        lambda graph: (graph.remove(graph.producers["b"]), graph.set_input(graph.producers["y"], 0, "a")),
        lambda relu: np.abs(relu) + relu + 1,
    ),
}


@pytest.mark.parametrize(("edit", "expected"), EDITS.values(), ids=EDITS)
def test_an_edit_and_what_the_editor_then_knows(edit, expected):
    """A view of the finished graph knows what the editor knew at once."""
    model = diamond()
    with Editor(model.graph) as graph:
        edit(graph)
        known = lookups(graph)
    assert known == lookups(Graph(model.graph))
    np.testing.assert_allclose(answer(model, VALUE), expected(np.maximum(VALUE, 0)), rtol=1e-6)


def test_a_node_with_two_edges_to_one_tensor():
    model = graph_of([node("Relu", ["x"], ["a"]), node("Add", ["a", "a"], ["y"])], {}, [4], [4])
    with Editor(model.graph) as graph:
        graph.set_input(graph.producers["y"], 1, "x")
        assert graph.only_consumer("a").op_type == "Add"
        assert lookups(graph)[1] == {"x": ["Add", "Relu"], "a": ["Add"]}


def test_nodes_are_those_of_the_start_without_what_is_removed():
    with Editor(diamond().graph) as graph:
        seen = []
        for each in graph.nodes():
            seen.append(each.op_type)
            if each.op_type == "Relu":
                graph.bypass(graph.producers["b"])
                graph.insert_after(each, node("Exp", ["x"], ["new"]))
    assert seen == ["Relu", "Abs", "Sqrt", "Sum"]
    with Editor(diamond().graph) as graph:
        assert [each.op_type for each in graph.nodes_backwards()] == ["Sum", "Sqrt", "Abs", "Neg", "Relu"]


def test_what_makes_an_output_is_not_bypassed():
    with Editor(diamond().graph) as graph, pytest.raises(ValueError, match="y is an output of the graph"):
        graph.bypass(graph.producers["y"])


def test_an_exception_leaves_the_nodes():
    model = diamond()
    before = copy.deepcopy(model)

    def fail() -> None:
        with Editor(model.graph) as graph:
            graph.remove(graph.producers["a"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model == before
