"""Photos placed in a folder that is new or empty, as links or copies: all of them or none."""

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.artifacts import locks
from birdsonnx.artifacts import temporary as temporary_names
from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.images.files import Say
from birdsonnx.runtime.audience import Advance

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""What file systems answer that have no symbolic links (FAT, exFAT, some network disks)."""

NO_PRIVILEGE = 1314
"""Windows' error where the user may not make links."""


def require_place(destination: Path, sources: Collection[Path]) -> None:
    """Raises DataError unless photos of `sources` may be placed in `destination`: it is new or empty, and it
    lies in none of the source folders, where its photos would be found again."""
    artifacts.require_new_or_empty(destination)
    place = os.path.realpath(destination)
    for source in sources:
        if source.is_dir() and Path(place).is_relative_to(os.path.realpath(source)):
            raise DataError(
                f"{destination}: lies in {source}, whose photos would be found there again; give a folder "
                "outside it"
            )


def place(
    photos: Mapping[str, Path | str],
    destination: Path,
    copies: bool,
    say: Say,
    advance: Advance = lambda _: None,
) -> None:
    """Put each photo at its path below `destination`: first into a temporary folder, then all at once.

    A new folder is renamed as a whole. One that is there stays the same folder, since it may be the one that
    a shell is in, a link, or a disk of its own; no other run fills it meanwhile. Links are symbolic and
    absolute: they may lie on another disk, and be moved.

    Args:
        photos: where each goes, folders parted by `/`, and where it lies.
        copies: whether to copy rather than link.
        say: takes a line where the file system of `destination` has no locks.

    Raises:
        DataError: another run filled the folder meanwhile.
        ArtifactError: it failed, and nothing is left of it; or another run fills the folder.
    """
    there = destination.exists()
    name = temporary_names.name_for(artifacts.sha256_of(os.fsencode(destination.name))[:16])
    temporary = destination / name if there else destination.with_name(name)
    with contextlib.ExitStack() as stack:
        if there:
            stack.enter_context(locks.sole_writer_in(destination, say))
            artifacts.require_new_or_empty(destination)  # another may have filled it just now
        temporary_names.remove_litter(temporary.parent)
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        with artifacts.naming(destination):
            temporary.mkdir(parents=True)
            for target, path in photos.items():
                _put(Path(path), temporary / target, destination, copies)
                advance(1)
            if there:
                _move(temporary, destination, {target.partition("/")[0] for target in photos})
            else:
                temporary.rename(destination)


def _put(path: Path, target: Path, destination: Path, copies: bool) -> None:
    """Raises OSError; ArtifactError where there can be no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if copies:
        if target.exists():  # where the disk takes two names for one, as 1.jpg and 1.JPG
            raise FileExistsError(errno.EEXIST, f"two photos would be called {target.name!r} there")
        shutil.copyfile(path, target)
        return
    try:
        target.symlink_to(os.path.abspath(path))  # noqa: PTH100 - a photo that is a link itself stays one
    except OSError as error:
        if error.errno in NO_LINKS or getattr(error, "winerror", None) == NO_PRIVILEGE:
            raise ArtifactError(
                f"cannot write {destination}: no links can be made there ({error.strerror}); ask for copies"
            ) from error
        raise


def _move(source: Path, destination: Path, names: Collection[str]) -> None:
    """Move files and folders into an empty folder, all of them or none. Raises OSError."""
    try:
        for name in names:
            (source / name).rename(destination / name)
    except BaseException:  # a signal too
        for name in names:
            temporary_names.remove(destination / name)
        raise
