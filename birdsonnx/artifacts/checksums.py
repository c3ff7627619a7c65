"""Files of the cache end in a checksum of their content and their name: one that was damaged, or is another's
under this name, is noticed and made again."""

import hashlib
from contextlib import suppress
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.artifacts.regular_files import LARGEST, opener, read_bytes, require_size

FINGERPRINT_BYTES = 16


def fingerprint(content: bytes, name: str = "") -> bytes:
    """BLAKE2b of some bytes, `FINGERPRINT_BYTES` long: to tell contents apart, and to notice damage. With a
    name, of at most 64 bytes, it is that of this file alone."""
    return hashlib.blake2b(content, digest_size=FINGERPRINT_BYTES, key=name.encode()).digest()


def fingerprint_of_file(path: Path) -> bytes:
    """The same of what a file of at most `LARGEST` bytes holds, read in pieces. Raises OSError."""
    with open(path, "rb", opener=opener) as file:
        require_size(file, LARGEST)
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=FINGERPRINT_BYTES)).digest()


def write(target: Path, content: bytes) -> None:
    """Replace `target` by `content` and its checksum. Raises ArtifactError."""
    artifacts.write_bytes(target, content + fingerprint(content, target.name))


def read(path: Path) -> bytes | None:
    """What `write` wrote there; None where there is nothing, or anything else."""
    with suppress(OSError):
        found = read_bytes(path)
        content = found[:-FINGERPRINT_BYTES]
        if found[-FINGERPRINT_BYTES:] == fingerprint(content, path.name):
            return content
    return None
