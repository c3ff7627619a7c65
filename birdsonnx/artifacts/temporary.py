"""Temporary files and folders: their names say whose they are, and what dead processes left is removed.

A name is `.<of what>.<where>.<process>.<its start>.tmp`. `where` stands for the host, its boot and its
process namespace (a container has one of its own): there a number means one process at a time, and the start
tells it from an earlier one of that number. So the next run knows which of them are litter. Nobody here can
ask about a process of another host or container, or of the time before a restart: what is theirs goes once
nothing has been written to it for a day.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from birdsonnx.errors import ArtifactError

FOREIGN_LITTER_S = 24 * 3600
"""After so long without a write, what a process of another place left is removed."""

NAME = re.compile(r"\..+\.(?P<where>[0-9a-f]{8})\.(?P<process>\d+)\.(?P<start>\d+)\.tmp", re.DOTALL)

LOCK = ".birdsonnx.lock"
"""What `locks` puts into a folder; where it stays, its process was killed."""

PROC = Path("/proc")


def name_for(what: str) -> str:
    """A name for a temporary file or folder of this process."""
    process = os.getpid()
    return f".{what}.{place_of_processes()}.{process}.{_start_of(process) or 0}.tmp"


def remove_litter(folder: Path) -> None:
    """Remove what dead processes left in a folder. What cannot be removed stays, without a word."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = NAME.fullmatch(entry.name)
            if found is not None and _is_litter(entry, found):
                remove(Path(entry.path))


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder where the system keeps temporary files (TMPDIR); libraries put theirs into it as well while it
    is open. It is gone afterwards.

    Raises:
        ArtifactError: nothing can be written there, or the body failed because it is full.
    """
    try:
        place = Path(tempfile.gettempdir())
        remove_litter(place)
        folder = place / name_for(f"birdsonnx-{os.urandom(4).hex()}")
        folder.mkdir(0o700)
    except OSError as error:
        raise _unusable(tempfile.tempdir, error) from None
    outside = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield folder
    except Exception:
        # A library that meets a full disk may raise anything, and name no cause.
        _require_room(folder)
        raise
    finally:
        tempfile.tempdir = outside
        shutil.rmtree(folder, ignore_errors=True)


def _require_room(folder: Path) -> None:
    """Raises ArtifactError where the largest file of the folder cannot be written there once more."""
    size = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)
    probe = folder / "probe"
    try:
        with probe.open("wb") as file:
            for _ in range(size // 2**20 + 1):
                file.write(bytes(2**20))
    except OSError as error:
        raise _unusable(folder.parent, error) from None
    finally:
        probe.unlink(missing_ok=True)


def _unusable(place: Path | str | None, error: OSError) -> ArtifactError:
    reason = error.strerror if error.errno != errno.ENOENT else str(error.strerror or error)
    folder = "no folder" if place is None else f"{place}"
    return ArtifactError(
        f"cannot write temporary files ({folder}: {reason}); set TMPDIR to a folder with room for them"
    )


def _is_litter(entry: "os.DirEntry[str]", name: re.Match[str]) -> bool:
    # Windows cannot ask about a process without ending it.
    if name["where"] == place_of_processes() and os.name != "nt":
        return not _is_alive(int(name["process"]), int(name["start"]))
    with contextlib.suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > FOREIGN_LITTER_S
    return False


def _is_alive(process: int, start: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        pass
    now = _start_of(process)
    return now is None or now == start


def _start_of(process: int) -> int | None:
    """When a process began, in ticks since the boot; None where the system does not say. A process that has
    ended, and that nobody has asked for yet, has begun never."""
    try:
        # The name of the program stands in brackets, and may hold spaces and brackets.
        with (PROC / str(process) / "stat").open("rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


@cache
def place_of_processes() -> str:
    """Where a number means one process at a time: the host, its boot and the process namespace, hashed."""
    facts = [socket.gethostname()]
    for read in (_boot, _process_namespace):
        with contextlib.suppress(OSError):
            facts.append(read())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text()


def _process_namespace() -> str:
    return str((PROC / "self/ns/pid").readlink())


def remove(path: Path) -> None:
    """A file, a link, or a folder and all in it. What cannot be removed stays, without a word."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
