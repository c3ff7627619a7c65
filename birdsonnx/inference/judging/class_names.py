"""Which classes of a model the names in a file mean, and what is to be said of those that mean none."""

from collections.abc import Sequence

from birdsonnx.config.wording import nearest
from birdsonnx.errors import DataError
from birdsonnx.inference.judging.name_files import alike, enumerated

SAID = 3
"""Names of a kind that are said, of which a list of the world's birds has 11,000."""

LONGEST_COMPARED = 100
"""Characters of a name for which the nearest class is looked for: the time grows with the square."""


class ClassNames:
    """The classes of a model, found by the names in one file.

    Args:
        where: the file's name in messages.
        classes: of the model, in index order.
    """

    def __init__(self, where: str, classes: Sequence[str]) -> None:
        self.where = where
        self._classes = classes
        self._exact = {name: index for index, name in enumerate(classes)}
        self._alike: dict[str, list[int]] = {}
        for index, name in enumerate(classes):
            self._alike.setdefault(alike(name), []).append(index)
        self._respelled: dict[str, str] = {}
        self._foreign: dict[str, None] = {}
        self._found = False

    def index(self, written: Sequence[str], number: int | None) -> int | None:
        """The class that a line means: by the exact name, else by the one that is `alike`.

        Args:
            written: what the line may name, the likeliest reading first; the last one is what is said of it.
            number: of the line; None: it has none.

        Raises:
            DataError: several classes are alike.
        """
        for name in written:
            if name in self._exact:
                self._found = True
                return self._exact[name]
        for name in written:
            several = self._alike.get(alike(name), [])
            if len(several) > 1:
                line = "" if number is None else f" line {number}:"
                either = " or ".join(repr(self._classes[index]) for index in several[:SAID])
                raise DataError(
                    f"{self.where}:{line} {name!r} may be the class {either}; write it as the model does"
                )
            if several:
                self._found = True
                self._respelled[name] = self._classes[several[0]]
                return several[0]
        self._foreign[written[-1]] = None
        return None

    def has(self, written: Sequence[str]) -> bool:
        """Whether a line names a class, or several."""
        return any(name in self._exact or alike(name) in self._alike for name in written)

    def require_some(self) -> None:
        """Raises DataError where not one name was that of a class."""
        if not self._found:
            names = list(self._foreign)
            raise DataError(
                f"{self.where}: none of its {len(names)} names is a class of the model: "
                f"{self._proposed(names)}; 'birdsonnx info' lists them"
                if names
                else f"{self.where}: no names in it; give one a line"
            )

    def notes(self) -> list[str]:
        """Lines about names that the model writes otherwise, and about those that it does not have."""
        lines = []
        if self._respelled:
            pairs = [f"{_short(name)!r} is {known!r}" for name, known in self._respelled.items()]
            lines.append(f"{self.where}: {enumerated(pairs, SAID)}")
        if self._foreign:
            names = list(self._foreign)
            count = f"{len(names):,} names are" if len(names) > 1 else "one name is"
            lines.append(f"{self.where}: {count} none of the model's classes: {self._proposed(names)}")
        return lines

    def _proposed(self, names: Sequence[str]) -> str:
        return enumerated([self._with_nearest(name) for name in names[:SAID]] + list(names[SAID:]), SAID)

    def _with_nearest(self, name: str) -> str:
        found = nearest(name, self._classes) if len(name) <= LONGEST_COMPARED else ""
        return f"{_short(name)!r} ({found[2:]})" if found else repr(_short(name))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_COMPARED else name[: LONGEST_COMPARED - 1] + "…"
