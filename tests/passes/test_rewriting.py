"""The form that every pass has: what is asked, what is changed, what is reported."""

import itertools

import numpy as np
from onnx import helper

from birdsonnx.passes.rewriting import Report, applied_of, apply, declined_of
from tests.graphs import answer, graph_of, operators

node = helper.make_node


class Halve:
    """Takes out one of two Negs in a row."""

    done, subject = "negations taken out", "negations"

    def candidates(self, graph):
        return (each for each in graph.nodes() if each.op_type == "Neg")

    def check(self, graph, neg):
        before = graph.producers.get(neg.input[0])
        if before is None or before.op_type != "Neg":
            return "no other before it"
        return "it makes an output" if neg.output[0] in graph.outputs else None

    def rewrite(self, graph, neg):
        before = graph.producers[neg.input[0]]
        graph.redirect(neg.output[0], before.input[0])
        graph.remove(neg)
        if before.output[0] not in graph.outputs and not graph.consumers[before.output[0]]:
            graph.remove(before)
        return 2


def negations(count):
    names = ["x", *(f"n{number}" for number in range(1, count)), "y"]
    nodes = [node("Neg", [one], [other]) for one, other in itertools.pairwise(names)]
    return graph_of(nodes, {}, [2], [2])


def test_every_place_is_rewritten_or_has_a_reason():
    model = negations(4)
    reasons = {"no other before it": 2, "it makes an output": 1}
    assert apply(Halve(), model.graph) == Report("negations taken out", "negations", 2, reasons)
    assert operators(model.graph) == ["Neg", "Neg"]
    values = np.float32([1, -2])
    np.testing.assert_array_equal(answer(model, values), values)


def test_a_place_is_judged_by_what_the_graph_is_when_its_turn_comes():
    report = apply(Halve(), negations(3).graph)
    assert report.declined == {"no other before it": 2}


def test_reports_as_plain_data():
    reports = [Report("a done", "a", 3, {"why": 1}), Report("b done", "b"), Report("c done", "c", 1)]
    assert applied_of(reports) == {"a done": 3, "b done": 0, "c done": 1}
    assert declined_of(reports) == {"a": {"why": 1}}
