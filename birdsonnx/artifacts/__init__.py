"""The one writer of results: temporary file beside the target, flushed to disk, then renamed.

A reader sees the old file or the new one, never half of one. Nothing else in birdsonnx opens a result for
writing, except the two training logs, which grow line by line.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from birdsonnx.artifacts import temporary as temporaries
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.errors import ArtifactError, DataError

NO_SUCH_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM)
"""What file systems answer that cannot flush a folder, or do not let us open it: nothing has failed then."""

_replaced: set[Path] = set()
"""Files that this process put into the place of others."""

_tidied: set[Path] = set()
"""Folders in which this process has looked for litter."""


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, for a body that does nothing but write it; on success it takes
    the target's place, else it is removed.

    Raises:
        ArtifactError: the folder cannot be made, or writing fails (a full disk, no permission).
    """
    with completing(target) as temporary, naming(target):
        yield temporary


@contextlib.contextmanager
def completing(target: Path) -> Iterator[Path]:
    """The same for a body that also does other work: an OSError of the body is not one of this file, unless
    it comes out of `naming`.

    Raises:
        ArtifactError: the folder cannot be made, or the file cannot take its place.
    """
    # The name may be as long as the file system allows; the temporary one must not be longer.
    digest = sha256_of(os.fsencode(target.name))[:16]
    temporary = target.parent / temporaries.name_for(digest)
    try:
        with naming(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _tidy(target.parent)
        yield temporary
        with naming(target):
            _flush(temporary)
            was_there = os.path.lexists(target)
            temporary.replace(target)
        (_replaced.add if was_there else _replaced.discard)(target.absolute())
        _flush_folder(target)
    finally:
        with contextlib.suppress(OSError):  # it is gone, or its folder is none, which was reported above
            temporary.unlink()


@contextlib.contextmanager
def naming(target: Path) -> Iterator[None]:
    """Raises an OSError of the body as ArtifactError: it could not write `target`."""
    try:
        yield
    except OSError as error:
        kept = "; the file that was there is intact" if target.is_file() else ""
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}{kept}") from error


def write_bytes(target: Path, content: bytes) -> None:
    """Replace `target` by `content`. Raises ArtifactError."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def written(path: Path) -> str:
    """A line about a file that this process has written: whether it took another one's place."""
    return f"{'replaced' if path.absolute() in _replaced else 'wrote'} {path}"


def write_json(target: Path, content: Any) -> None:
    """Replace `target` by `content` as indented JSON. Raises ArtifactError."""
    write_bytes(target, (json_text(content, indent=2) + "\n").encode())


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON of plain values, paths as text. NaN and infinity, which JSON has not, become null."""
    return json.dumps(_without_nan(content), indent=indent, default=str, allow_nan=False)


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def require_new_or_empty(folder: Path) -> None:
    """Raises DataError unless results of several files may go into the folder: it is not there, or empty."""
    temporaries.remove_litter(folder)
    try:
        free = not folder.exists() or (
            folder.is_dir() and all(entry.name == temporaries.LOCK for entry in folder.iterdir())
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    if not free:
        raise DataError(f"{folder}: exists and is not empty; give a new folder")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises OSError, also where it is no regular file."""
    with open(path, "rb", opener=opener) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def _flush(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def _flush_folder(target: Path) -> None:
    """Make the file's new name last. Raises ArtifactError; the new file is there nevertheless."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    try:
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_SUCH_FLUSH:
            raise ArtifactError(
                f"{target}: the new file is there and whole, but its disk reports an error "
                f"({error.strerror or error}): a power cut could lose it; check the disk"
            ) from error


def _tidy(folder: Path) -> None:
    """Remove what dead processes left in a folder, once."""
    place = folder.absolute()
    if place not in _tidied:
        _tidied.add(place)
        temporaries.remove_litter(folder)
