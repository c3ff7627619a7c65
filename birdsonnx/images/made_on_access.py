"""Lists by the million whose elements are made where one is asked for."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

Element = TypeVar("Element", covariant=True)


class MadeOnAccess(Sequence[Element]):
    """A list that knows its length, and how to make each element."""

    __slots__ = ()

    @abstractmethod
    def made(self, index: int) -> Element:
        """The element at a place from 0 on, below the length."""

    @overload
    def __getitem__(self, index: int) -> Element: ...
    @overload
    def __getitem__(self, index: slice) -> list[Element]: ...
    def __getitem__(self, index: int | slice) -> Element | list[Element]:
        places = range(len(self))[index]
        return self.made(places) if isinstance(places, int) else list(map(self.made, places))

    def __iter__(self) -> Iterator[Element]:
        return map(self.made, range(len(self)))
