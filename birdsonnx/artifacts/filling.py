"""A folder of its own that a command fills: what an earlier one left that was stopped or failed is known by a
mark, and goes; what is another's is never touched."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.artifacts import locks, temporary
from birdsonnx.artifacts.locks import Say
from birdsonnx.errors import DataError

MARK = ".birdsonnx_unfinished"
"""A file in the folder while a command works there, with the command's name in it."""


@contextlib.contextmanager
def filled(folder: Path, made: Sequence[str], command: str, say: Say) -> Iterator[None]:
    """Let the block fill a folder that is new or empty, or holds what the same command left unfinished, which
    is removed; no other process that asks may write there meanwhile.

    Args:
        made: patterns of the names that the command gives to what it puts there.
        command: its name, in messages.
        say: takes a line about what was left.

    Raises:
        DataError: something else is in the folder.
        ArtifactError: nothing can be written there, or another process does.
    """
    _require_own(folder, made, command)
    with locks.sole_writer_in(folder, say):
        _require_own(folder, made, command)  # another may have filled it just now
        if _is_marked(folder, command):
            say(f"{folder}: a {command} that did not end is in it; removed, to begin anew")
        with artifacts.naming(folder):
            _empty(folder)
        artifacts.write_bytes(folder / MARK, command.encode())
        yield
        with artifacts.naming(folder):
            (folder / MARK).unlink()


def _is_marked(folder: Path, command: str) -> bool:
    try:
        return (folder / MARK).read_bytes() == command.encode()
    except OSError:
        return False


def _require_own(folder: Path, made: Sequence[str], command: str) -> None:
    """Raises DataError where the folder holds anything that the command did not leave unfinished."""
    if not _is_marked(folder, command):
        artifacts.require_new_or_empty(folder)
        return
    names = sorted(entry.name for entry in folder.iterdir())
    known = (MARK, temporary.LOCK, *made)
    for name in names:
        if not temporary.NAME.fullmatch(name) and not any(fnmatchcase(name, each) for each in known):
            raise DataError(
                f"{folder}: a {command} that did not end is in it, and {name!r}, which is not of it; give a "
                "new folder"
            )


def _empty(folder: Path) -> None:
    """The mark goes last: what is stopped here can be done again. Raises OSError."""
    for entry in sorted(folder.iterdir(), key=lambda each: each.name == MARK):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != temporary.LOCK:
            entry.unlink()
