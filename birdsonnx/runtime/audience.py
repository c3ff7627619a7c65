"""Whoever work reports to while it runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Is told of steps as they are done."""


class Audience(Protocol):
    """Takes lines and progress; the console is one, and a test's recorder another."""

    def say(self, line: str) -> None:
        """One line for people."""

    def progress(self, title: str, total: int | None = None, /) -> AbstractContextManager[Advance]:
        """Show how far a piece of work is, of so many steps (None: nobody knows how many); gives the function
        that advances it. One may be opened inside another."""


class _Nobody:
    def say(self, line: str) -> None:
        pass

    def progress(self, _title: str, _total: int | None = None, /) -> AbstractContextManager[Advance]:
        return nullcontext(lambda _: None)


NOBODY: Audience = _Nobody()
"""The audience of work that nobody watches."""
