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

Read = Callable[[Path], str | None]

LONGEST = 300
"""Characters of a command that are kept for people; all of it is in its hash."""


@dataclass(frozen=True)
class Command:
    """What was asked for."""

    words: tuple[str, ...]
    """As they are typed, for people."""
    decides: Any
    """What of it decides what a result holds, ready for JSON: not how fast, nor what else is printed or
    written, nor the order of options."""

    def record(self, folder: Path) -> str:
        """The record of a result in `folder`, one line of ASCII. Paths may be relative, so the working
        directory counts, as seen from there: both may move together."""
        here = os.path.relpath(Path.cwd(), folder.resolve())
        whole = json.dumps([self.decides, here], sort_keys=True, default=str)
        line = f"birdsonnx {shlex.join(self.words)}"
        line = line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
        return json.dumps({"command": line, "sha256": sha256_of(whole.encode())})


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
    record: str,
    read: Read,
    say: Callable[[str], None],
    overwrite: bool = False,
) -> Iterator[Place]:
    """The place for a result: the first number whose files are not there, or are of the same command. Until
    the block ends no other process gets that number.

    Args:
        names: the files of each number, from 1 on; all in one folder, which is made.
        record: of the command.
        read: a file's record; None where it has none that can be read.
        say: takes a line where anything is to be replaced, or where it is not the first number.
        overwrite: whether the first number is to be taken whoever made its files.

    Raises:
        ArtifactError: nothing can be written there; with `overwrite`, another process does so now.
    """
    folder = names(1)[0].parent
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        why = ""
        for number in count(1):
            paths = tuple(names(number))
            obstacle = _obstacle(paths, record, read, say, overwrite, stack)
            if not obstacle:
                break
            why = why or obstacle
        there = any(map(os.path.lexists, paths))
        shown = " and ".join(map(str, paths))
        if there:
            others = [path for path in paths if not same(read(path), record)]
            whose = _whose(others[0], read) if others else "they are" if len(paths) > 1 else "it is"
            say(f"replacing {shown}: {whose}" + ("" if others else " of the same command"))
        elif why:
            say(f"writing {shown}, since {why}; --overwrite replaces it")
        yield Place(paths, record)


def _obstacle(
    paths: Sequence[Path],
    record: str,
    read: Read,
    say: Callable[[str], None],
    overwrite: bool,
    stack: contextlib.ExitStack,
) -> str:
    """Why these files may not be written; empty where they may, and are locked then until `stack` ends."""
    with contextlib.ExitStack() as attempt:
        try:
            attempt.enter_context(locks.sole_writer_of(paths[0], say))
        except locks.TakenError:
            if overwrite:
                raise
            return f"another run writes {paths[0]} now"
        others = [path for path in paths if os.path.lexists(path) and not same(read(path), record)]
        if others and not overwrite:
            return _whose(others[0], read)
        stack.enter_context(attempt.pop_all())
    return ""


def same(one: str | None, other: str | None) -> bool:
    """Whether two records are of one command."""
    digest = _parsed(one).get("sha256")
    return digest is not None and digest == _parsed(other).get("sha256")


def replaces(path: Path, record: str, read: Read) -> str:
    """A line about a file that will be replaced and is of another command; empty where there is none."""
    if not os.path.lexists(path) or same(read(path), record):
        return ""
    return f"replacing {path}: {_whose(path, read)}"


def _whose(path: Path, read: Read) -> str:
    line = _parsed(read(path)).get("command")
    if not line:
        return f"{path} does not say which command made it"
    return f"{path} is of another command ({line})"


def _parsed(record: str | None) -> dict[str, Any]:
    try:
        found = json.loads(record or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
