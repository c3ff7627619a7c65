"""Ranks of several hosts read their own disks: that they see the same photos and the same model is checked.

Rank 0's list of photos and its model are everyone's; another rank that reads other photos under the same
names would train on them without a word. A rank that has no such folder at all is left alone: its features
may come over MPI.
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.images.folders import LabelledFolder
from birdsonnx.images.photo_status import SIZE, status_of
from birdsonnx.runtime.ranks import Ranks


def require(ranks: Ranks, folders: Sequence[LabelledFolder], model: Path) -> None:
    """Raises RankError, on all ranks, where one sees other photos (by their sizes) or another model."""
    if ranks.size == 1:
        return
    for folder in folders:
        fact = _once_a_host(ranks, folder.root, lambda folder=folder: _sizes(folder))  # type: ignore[misc]
        ranks.require_same(fact, f"photos in {folder.root}")
    ranks.require_same(_once_a_host(ranks, model, lambda: artifacts.sha256(model)), f"content in {model}")


def _once_a_host(ranks: Ranks, path: Path, measure: Callable[[], str]) -> str | None:
    """By the first rank that sees this very file or folder; None on the others, and where it is not there."""
    identity = None
    with contextlib.suppress(OSError):
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
    if ranks.sharing(identity)[0] != ranks.rank or identity is None:
        return None
    try:
        return measure()
    except OSError as error:
        return str(error)


def _sizes(folder: LabelledFolder) -> str:
    return hashlib.sha256(status_of(folder.photos)[:, SIZE].tobytes()).hexdigest()
