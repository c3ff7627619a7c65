"""Genus, family, order: what can be said of a photo whose class is not sure enough.

The probability of a taxon is the sum of its classes'. Of each level the taxon with the largest one is looked
at, from the most specific level up, and the first that reaches the threshold is the answer. It need not hold
the likeliest class: ten species of one genus at 0.08 each are together surer than one of another at 0.2. (So
does SpeciesNet's ensemble when it rolls its labels up.) A taxon of which only one class can occur is passed
over: it is as sure as that class, which was not sure enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a taxonomy, over the classes of a model."""

    name: str
    """Such as genus."""
    taxa: tuple[str, ...]
    of_class: npt.NDArray[np.int64]
    """Index of each class's taxon, int64 `(classes,)`; `len(taxa)` where it has none."""
    unites: npt.NDArray[np.bool_]
    """Whether several classes that can occur are of a taxon, bool `(taxa,)`."""

    @classmethod
    def of(cls, name: str, taxon_of: Sequence[str | None], possible: Sequence[int]) -> "Level":
        """Of each class's taxon, in index order.

        Args:
            possible: indices of the classes that can occur.
        """
        taxa = tuple(dict.fromkeys(taxon for taxon in taxon_of if taxon is not None))
        index = {taxon: position for position, taxon in enumerate(taxa)}
        of_class = np.array([len(taxa) if each is None else index[each] for each in taxon_of], np.int64)
        members = np.bincount(of_class[np.asarray(possible, np.int64)], minlength=len(taxa) + 1)
        return cls(name, taxa, of_class, members[: len(taxa)] > 1)


@dataclass(frozen=True)
class Taxonomy:
    """The levels above a model's classes, the most specific first."""

    levels: tuple[Level, ...]

    def surest(self, log_probs: npt.NDArray[np.floating], threshold: float) -> tuple[str, str, float] | None:
        """The most specific level, its taxon and that one's probability, where one reaches the threshold.

        Args:
            log_probs: of all classes, `(classes,)`; minus infinity for those that cannot occur.
        """
        probabilities = np.exp(log_probs.astype(np.float64))
        for level in self.levels:
            sums = np.bincount(level.of_class, probabilities, len(level.taxa) + 1)[: len(level.taxa)]
            if not len(sums):
                continue
            best = int(sums.argmax())
            if level.unites[best] and sums[best] >= threshold:
                return level.name, level.taxa[best], min(1.0, float(sums[best]))
        return None
