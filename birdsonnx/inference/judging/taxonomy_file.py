"""A taxonomy as a table: `class,genus,family,order`, a line for each class."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.errors import DataError
from birdsonnx.inference.judging.class_names import SAID, ClassNames
from birdsonnx.inference.judging.name_files import SEPARATORS, alike, enumerated, first_cell, lines_of
from birdsonnx.inference.judging.taxonomy import Level, Taxonomy
from birdsonnx.inference.judging.verdicts import CLASS, UNKNOWN, UNSURE

RANKS = (
    *("species", "subgenus", "genus", "subtribe", "tribe", "subfamily", "family", "superfamily"),
    *("parvorder", "infraorder", "suborder", "order", "superorder", "subclass", "superclass"),
    *("subphylum", "phylum", "kingdom", "domain"),
)
"""Of biology, the most specific first: columns of these names may stand in any order. Its class is not among
them: that word means the model's class here."""

RESERVED = (CLASS, UNKNOWN, UNSURE)

FORM = "its first line must be such as class,genus,family,order"


@dataclass(frozen=True)
class _Row:
    number: int
    """Of its line."""
    name: str
    """The class."""
    taxa: tuple[str, ...]
    """In the order of the levels; empty where it has none."""


@dataclass(frozen=True)
class TaxonomyTable:
    """A taxonomy, not yet compared with a model's classes."""

    where: str
    levels: tuple[str, ...]
    """The most specific first."""
    rows: tuple[_Row, ...]

    @classmethod
    def read(cls, path: Path) -> "TaxonomyTable":
        """Of a CSV. Raises DataError where it is none, or contradicts itself."""
        lines = lines_of(path, "a CSV of class,genus,family,order")
        separator = next(
            (each for each in SEPARATORS if first_cell(lines[0], each).casefold() == CLASS), SEPARATORS[0]
        )
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
        cells: list[tuple[int, list[str]]] = []
        try:
            cells.extend((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: no CSV ({error})") from None
        filled = [(number, row) for number, row in cells if any(row)]
        if not filled:
            raise DataError(f"{path}: nothing in it; {FORM}")
        (_, header), *others = filled
        for number, row in others:
            if any(row[len(header) :]):
                raise DataError(f"{path}: line {number}: {len(row)} cells for {len(header)} columns")
        columns = _columns(str(path), header, others)
        rows = tuple(
            _Row(number, row[0], tuple(row[column] if column < len(row) else "" for column, _ in columns))
            for number, row in others
        )
        table = cls(str(path), tuple(name for _, name in columns), rows)
        table._require_sound()
        return table

    def among(self, classes: Sequence[str], possible: Sequence[int], say: Callable[[str], None]) -> Taxonomy:
        """The taxonomy of a model's classes.

        Args:
            possible: indices of those that can occur.

        Raises:
            DataError: none of its classes is the model's; a name that may be one class or another, or two
                that are one.
        """
        names = ClassNames(self.where, classes)
        row_of: dict[int, _Row] = {}
        for row in self.rows:
            index = names.index([row.name], row.number)
            if index is None:
                continue
            if index in row_of:
                raise self._twice(row, row_of[index])
            row_of[index] = row
        names.require_some()
        missing = [repr(classes[index]) for index in possible if index not in row_of]
        for line in names.notes():
            say(line)
        if missing:
            say(
                f"{self.where}: no line for {len(missing)} of {len(possible)} classes, so they have no "
                f"higher level: {enumerated(missing, SAID)}"
            )
        taxa = [row_of[index].taxa if index in row_of else None for index in range(len(classes))]
        return Taxonomy(
            tuple(
                Level.of(level, [None if row is None else row[place] or None for row in taxa], possible)
                for place, level in enumerate(self.levels)
            )
        )

    def _require_sound(self) -> None:
        """Raises DataError where a class has no name or two lines, a taxon two spellings or two parents."""
        seen: dict[str, _Row] = {}
        for row in self.rows:
            if not row.name:
                raise DataError(f"{self.where}: line {row.number}: the class is missing")
            if row.name in seen:
                raise self._twice(row, seen[row.name])
            seen[row.name] = row
        for place, level in enumerate(self.levels):
            first: dict[str, _Row] = {}
            for row in self.rows:
                if not row.taxa[place]:
                    continue
                before = first.setdefault(alike(row.taxa[place]), row)
                lines = f"{self.where}: lines {before.number} and {row.number}: the {level}"
                if before.taxa[place] != row.taxa[place]:
                    raise DataError(
                        f"{lines} is written {before.taxa[place]!r} and {row.taxa[place]!r}; "
                        "write it in one way"
                    )
                for higher in range(place + 1, len(self.levels)):
                    above = before.taxa[higher], row.taxa[higher]
                    if above[0] != above[1]:
                        either = " and ".join(repr(each) if each else "none" for each in above)
                        raise DataError(
                            f"{lines} {row.taxa[place]!r} has two of the level {self.levels[higher]}: "
                            f"{either}; it can have one (the columns go from the most specific level up)"
                        )

    def _twice(self, row: _Row, before: _Row) -> DataError:
        return DataError(
            f"{self.where}: lines {before.number} and {row.number}: the class {row.name!r} is there twice"
        )


def _columns(
    where: str, header: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]
) -> list[tuple[int, str]]:
    """The columns of the levels and their names, the most specific first. Raises DataError."""
    names = [name.casefold() for name in header]
    if names[0] != CLASS:
        raise DataError(f"{where}: {FORM}, and begins with {header[0][:60]!r}")
    levels: list[tuple[int, str]] = []
    for column, name in enumerate(names[1:], 1):
        if not name:
            if any(column < len(row) and row[column] for _, row in rows):
                raise DataError(f"{where}: column {column + 1} has no name; {FORM}")
            continue
        if name in RESERVED:
            raise DataError(f"{where}: no level can be called {name!r}; rename column {column + 1}")
        if name in (known for _, known in levels):
            raise DataError(f"{where}: the column {name!r} is there twice")
        levels.append((column, name))
    if not levels:
        raise DataError(f"{where}: no levels in it; {FORM}")
    if all(name in RANKS for _, name in levels):
        levels.sort(key=lambda level: RANKS.index(level[1]))
    return levels
