"""Files and folders that one process at a time may write.

The lock is the kernel's (flock), on a small file: a process that dies, however it does, holds nothing any
more. The file goes with its owner; one that a killed owner left stands in nobody's way, and goes with the
next one.
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from birdsonnx.artifacts.temporary import LOCK, remove_litter
from birdsonnx.errors import ArtifactError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Say = Callable[[str], None]


class TakenError(ArtifactError):
    """Another process writes there now."""


@contextlib.contextmanager
def sole_writer_in(folder: Path, say: Say) -> Iterator[None]:
    """Let no other process that asks for it write into a folder, which is made where it is not there, and
    which goes again if nothing was put into it. Litter of dead processes is removed from it.

    Args:
        say: takes a line where the file system has no locks; the work goes on without one.

    Raises:
        TakenError: another process has it.
        ArtifactError: nothing can be written there.
    """
    made: list[Path] = []
    try:
        try:
            _make(folder, made)
        except OSError as error:
            raise ArtifactError(f"cannot write into {folder}: {error.strerror}") from None
        with _lock(folder / LOCK, str(folder), say):
            remove_litter(folder)
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for each in reversed(made):
                each.rmdir()


@contextlib.contextmanager
def sole_writer_of(path: Path, say: Say) -> Iterator[None]:
    """The same for one file, with the lock beside it; its folder has to be there."""
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[
        :16
    ]  # the path's own may be as long as any may be
    with _lock(path.with_name(f".{name}.lock"), str(path), say):
        yield


def _make(folder: Path, made: list[Path]) -> None:
    """A folder and those above it, noted as they are made. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # by another process, just now
            each.mkdir()
            made.append(each)
    folder.mkdir(parents=True, exist_ok=True)  # raises where a file is in its place


@contextlib.contextmanager
def _lock(path: Path, what: str, say: Say) -> Iterator[None]:
    try:
        descriptor = _acquired(path, what, say)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is still ours
            if _is_at(path, descriptor):
                path.unlink()
        os.close(descriptor)


def _acquired(path: Path, what: str, say: Say) -> int:
    """The lock file's descriptor. Raises ArtifactError or OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _ask(descriptor, what, say)
            if _is_at(path, descriptor):
                with contextlib.suppress(OSError):  # a full disk: who we are is for the other's message alone
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        except FileNotFoundError:
            pass  # its owner took it away between our two looks
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one of that name: the folder may be another by now. Raises OSError."""
    return os.path.samestat(os.fstat(descriptor), path.stat())


def _ask(descriptor: int, what: str, say: Say) -> None:
    """Raises TakenError where another process has the lock."""
    if fcntl is None:
        say(f"{what}: no locks on this system; let no second run write there")
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 400, 0).decode(errors="replace") or "another process"
        raise TakenError(
            f"{what}: another run writes there now ({owner}); wait for its end, or give another place"
        ) from None
    except OSError as error:  # such as ENOLCK, ENOTSUP or ENOSYS: a network disk mounted without locks
        say(f"{what}: no locks on this file system ({error.strerror}); let no second run write there")
