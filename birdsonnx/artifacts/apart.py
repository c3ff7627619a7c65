"""Results that would take the place of what they are made of, or of each other: said before any work."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from birdsonnx.errors import ConfigError

Named = tuple[str, Path | None]
"""An option, and the path that it was given; None: it was not."""


def require_apart(written: Sequence[Named], read: Sequence[Named], photos: Iterable[str]) -> None:
    """Raises ConfigError where a file to write is one that is read, a photo, or another one to write.

    Args:
        written: the results.
        read: files that what is to be written is made of.
        photos: their paths.
    """
    others: dict[str, str] = {}
    for option, path in read:
        if path is not None:
            others.setdefault(os.path.realpath(path), option)
    existing: dict[str, list[tuple[str, Path]]] = {}
    for option, path in written:
        if path is None:
            continue
        other = others.setdefault(os.path.realpath(path), option)
        if other != option:
            raise ConfigError(f"{option} {path}: is the file of {other} too; give another name")
        if os.path.lexists(path):
            existing.setdefault(path.name, []).append((option, path))
    # Of a million photos only those of the same name are asked for their place on the disk.
    for photo in photos if existing else ():
        folder, name = os.path.split(photo)
        for option, path in existing.get(name, ()):
            if os.path.realpath(folder) == os.path.realpath(path.parent):
                raise ConfigError(f"{option} {path}: is one of the photos; give another name")
