"""How sure is sure enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any


@dataclass(frozen=True)
class Thresholds:
    """What an answer's probability must reach for it to be said."""

    of_class: tuple[float, ...]
    """In index order."""
    of_taxa: float
    """Of all levels above the class."""
    precision: float | None = None
    """The share of right answers that they were fitted for; None: one number was given for all."""

    @classmethod
    def of_model(cls, fitted: Mapping[str, Any]) -> "Thresholds":
        """Those that a model brings (`Metadata.thresholds`). A taxon has none that was fitted: it must be as
        probable as the answers were to be right. The largest of its classes' would be no measure: two species
        that are taken for each other have high ones, and their genus is what can be said of them.

        A class with 1 is never said: no photo proved one. Probabilities can be 1 by rounding.
        """
        limits = (inf if value == 1 else value for value in fitted["values"])
        return cls(tuple(limits), fitted["precision"], fitted["precision"])

    @classmethod
    def same(cls, threshold: float, count: int) -> "Thresholds":
        """One number for all."""
        return cls((threshold,) * count, threshold)
