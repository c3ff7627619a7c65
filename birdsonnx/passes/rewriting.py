"""What every pass over a graph has: places it looks at, a check that says why not, a rewrite, and a report.

A pass is a small class in a module of its own, whose docstring shows why the rewrite keeps the values.
`apply` runs one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from onnx import GraphProto

from birdsonnx.model.edits import Editor

Place = TypeVar("Place")


class Pass(Protocol[Place]):
    """One rewrite of a graph that keeps its values. A place is most often a node."""

    @property
    def done(self) -> str:
        """What the report calls that which was rewritten: `batch norm folded`."""

    @property
    def subject(self) -> str:
        """What the report calls that which was left as it is: `batch norm`."""

    def candidates(self, graph: Editor, /) -> Iterator[Place]:
        """Where the rewrite would gain something; asked for one by one, while the graph changes."""

    def check(self, graph: Editor, place: Place, /) -> str | None:
        """Why the rewrite would be wrong here, in words for the user; None where it is right."""

    def rewrite(self, graph: Editor, place: Place, /) -> int:
        """Change the graph at one place that `check` has nothing against; returns how many nodes that is."""


@dataclass(frozen=True)
class Report:
    """What a pass did to a graph, and what it did not do."""

    done: str
    subject: str
    applied: int = 0
    """What was rewritten."""
    declined: Mapping[str, int] = field(default_factory=dict)
    """How many places were left as they are, by reason."""


def apply(each: Pass[Place], proto: GraphProto) -> Report:
    """Run one pass over a graph, in place."""
    applied = 0
    declined: dict[str, int] = {}
    with Editor(proto) as graph:
        for place in each.candidates(graph):
            reason = each.check(graph, place)
            if reason is None:
                applied += each.rewrite(graph, place)
            else:
                declined[reason] = declined.get(reason, 0) + 1
    return Report(each.done, each.subject, applied, declined)


def applied_of(reports: Iterable[Report]) -> dict[str, int]:
    """How much each pass rewrote, by what it calls that."""
    return {report.done: report.applied for report in reports}


def declined_of(reports: Iterable[Report]) -> dict[str, dict[str, int]]:
    """How many places were left as they are, by subject and by reason; without the passes that left none."""
    return {report.subject: dict(report.declined) for report in reports if report.declined}
