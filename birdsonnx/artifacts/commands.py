"""Which command made a result, so that no other command's result is overwritten in silence.

A result that gets its name from us carries a record of its command: an attribute of an HDF5 file, a comment
line of a log, a text of a PNG. The same command replaces its own result; another one gets the next number,
or, with `--overwrite`, takes the place.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from birdsonnx.artifacts import locks, naming, sha256_of

Say = Callable[[str], None]

LONGEST = 300
"""Characters of a command that are kept for people; all of it is in its hash."""


@dataclass(frozen=True)
class Command:
    """What was asked for, as far as it decides what a result holds."""

    words: tuple[str, ...]
    """Of the command line, without those that decide only how fast, or what else is printed or written."""
    settings: Any = None
    """The values of its config, ready for JSON."""

    @property
    def line(self) -> str:
        """As it is typed."""
        return f"birdsonnx {shlex.join(self.words)}"

    def record(self, folder: Path) -> str:
        """The record of a result in `folder`, one line of ASCII. Words may be relative paths, so the working
        directory counts, as seen from there."""
        here = os.path.relpath(Path.cwd(), folder.resolve())
        whole = json.dumps([self.words, self.settings, here], sort_keys=True, default=str)
        line = self.line if len(self.line) <= LONGEST else f"{self.line[:LONGEST]} …"
        return json.dumps({"command": line, "sha256": sha256_of(whole.encode())})


def line_of(record: str | None) -> str | None:
    """The command of a record, for people; None where there is no record."""
    try:
        found = json.loads(record or "")
        return str(found["command"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Place:
    """Where the result of a command goes."""

    paths: tuple[Path, ...]
    """Of its files."""
    record: str
    """To be kept in each of them."""


def numbered(path: Path, number: int) -> Path:
    """`out.png`, `out_2.png`, `out_3.png` …"""
    return path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")


@contextlib.contextmanager
def taking(
    names: Callable[[int], Sequence[Path]],
    command: Command,
    read: Callable[[Path], str | None],
    say: Say,
    overwrite: bool = False,
) -> Iterator[Place]:
    """The place for a command's result: the first number whose files are not there, or are of the same
    command. Until the block ends no other process gets that number.

    Args:
        names: the files of each number, from 1 on; all in one folder, which is made.
        command: the one that is running.
        read: a file's record; None where it has none that can be read.
        say: takes a line where anything is replaced, or where it is not the first number.
        overwrite: whether the first number is to be taken whoever made its files.

    Raises:
        ArtifactError: nothing can be written there; with `overwrite`, another process does so now.
    """
    folder = names(1)[0].parent
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    record = command.record(folder)
    why = ""
    for number in count(1):
        paths = tuple(names(number))
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(locks.sole_writer_of(paths[0], say))
                others = [path for path in paths if os.path.lexists(path) and read(path) != record]
                if others and not overwrite:
                    why = why or _whose(others[0], read)
                    continue
                _tell(paths, others, why, read, say)
                yield Place(paths, record)
                return
        except locks.TakenError:
            if overwrite:
                raise
            why = why or f"another run writes {paths[0]} now"


def _whose(path: Path, read: Callable[[Path], str | None]) -> str:
    line = line_of(read(path))
    return f"{path} is of {line}" if line else f"{path} does not say which command made it"


def _tell(
    paths: Sequence[Path], others: Sequence[Path], why: str, read: Callable[[Path], str | None], say: Say
) -> None:
    shown = " and ".join(map(str, paths))
    if others:
        say(f"replacing {shown}: {_whose(others[0], read)}, and --overwrite was given")
    elif any(map(os.path.lexists, paths)):
        say(f"replacing {shown}, of the same command")
    elif why:
        say(f"writing {shown}: {why}; --overwrite would replace it")
