"""The one writer of results: temporary file beside the target, flushed to disk, then renamed.

A reader sees the old file or the new one, never a half. Nothing else in birdsonnx opens a result for
writing, except the two training logs, which grow line by line.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from birdsonnx.errors import ArtifactError


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it takes the target's place, else it is removed.

    Raises:
        ArtifactError: the folder cannot be made, or writing fails (a full disk, no permission).
    """
    # The name may be as long as the file system allows; the temporary one must not be longer.
    digest = sha256_of(os.fsencode(target.name))[:16]
    temporary = target.parent / f".{digest}.{os.getpid()}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        kept = "; the file that was there is intact" if target.exists() else ""
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}{kept}") from error
    finally:
        with contextlib.suppress(OSError):  # gone, or in a folder that is none: told above
            temporary.unlink()


def write_bytes(target: Path, content: bytes) -> None:
    """Replace `target` by `content`. Raises ArtifactError."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def write_json(target: Path, content: Any) -> None:
    """Replace `target` by `content` as indented JSON. Raises ArtifactError."""
    write_bytes(target, (json.dumps(content, indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle on a folder to flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
