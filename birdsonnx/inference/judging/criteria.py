"""What a request asks to be gone by when photos are judged: read, and compared with the model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdsonnx.errors import ConfigError
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.judging import species as lists
from birdsonnx.inference.judging.species import SpeciesList
from birdsonnx.inference.judging.taxonomy_file import TaxonomyTable
from birdsonnx.inference.judging.thresholds import Thresholds
from birdsonnx.inference.judging.verdicts import Judge


@dataclass(frozen=True)
class Criteria:
    """What is asked for. Raises ConfigError where a threshold is none, or nothing needs the taxonomy."""

    species: Path | Sequence[str] | None = None
    """Those that can occur: a file, or their names; None: all."""
    threshold: float | None = None
    """Of all classes; 0: there is none. None: the model's own."""
    taxonomy: Path | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:  # NaN is not, either
            raise ConfigError(f"threshold {self.threshold}: a probability is from 0 to 1")
        if self.taxonomy is not None and self.threshold == 0:
            raise ConfigError(
                "a taxonomy is for answers below a threshold, and with threshold 0 there are none; "
                "give one such as 0.8"
            )

    def read(self) -> "ReadCriteria":
        """Read its files. Raises DataError where one cannot be used, whatever the model."""
        listed = None
        if self.species is not None:
            named = self.species
            listed = SpeciesList.read(named) if isinstance(named, Path) else lists.of_names(named)
        table = None if self.taxonomy is None else TaxonomyTable.read(self.taxonomy)
        return ReadCriteria(listed, self.threshold, table)


@dataclass(frozen=True)
class ReadCriteria:
    """Criteria whose files are read, and not yet compared with a model."""

    species: SpeciesList | None = None
    threshold: float | None = None
    taxonomy: TaxonomyTable | None = None

    def judge(self, classifier: Classifier, top_k: int, say: Callable[[str], None]) -> Judge:
        """Who goes by them, and by what the model brings.

        Raises:
            ConfigError: a taxonomy, and no threshold.
            DataError: a file that names none of the model's classes.
        """
        return self.judge_of(
            classifier.class_names, classifier.metadata.thresholds, classifier.metadata.known, top_k, say
        )

    def judge_of(
        self,
        names: Sequence[str],
        fitted: Mapping[str, Any] | None,
        known: Mapping[str, Any] | None,
        top_k: int,
        say: Callable[[str], None],
    ) -> Judge:
        """The same, of class names in index order, and of the metadata `thresholds` and `known`."""
        limits = self._thresholds(len(names), fitted, say)
        if self.taxonomy is not None and limits is None:
            raise ConfigError(
                f"{self.taxonomy.where}: a taxonomy is for answers below a threshold, and the model has none "
                "of its own; give --threshold, such as 0.8"
            )
        species = None if self.species is None else self.species.among(names, say)
        possible: Iterable[int] = range(len(names)) if species is None else species.indices.tolist()
        possible = list(possible)
        taxonomy = None if self.taxonomy is None else self.taxonomy.among(names, possible, say)
        least = None if known is None else float(known["threshold"])
        return Judge(names, min(top_k, len(possible)), least, species, limits, taxonomy)

    def _thresholds(
        self, count: int, fitted: Mapping[str, Any] | None, say: Callable[[str], None]
    ) -> Thresholds | None:
        if self.threshold is not None:
            return Thresholds.same(self.threshold, count) if self.threshold else None
        if fitted is None:
            return None
        say(
            f"thresholds: the model's own, for a precision of {fitted['precision']:g}; what does not reach "
            "them is unsure (--threshold 0: none)"
        )
        return Thresholds.of_model(fitted)
