"""Whoever work reports to while it runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Audience(Protocol):
    """Takes lines and progress; the console is one, and a test's recorder another."""

    def say(self, line: str) -> None:
        """One line for people."""

    def progress(self, title: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]:
        """Open a bar of so many steps; gives the function that advances it."""
