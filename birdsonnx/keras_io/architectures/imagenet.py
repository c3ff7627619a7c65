"""ImageNet's weights, downloaded as Keras does: from the same place into the same folder, with its hashes."""

import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.keras_io.architectures.descriptions import ImageNetFile

PATIENCE_S = 30
"""How long a server may say nothing."""


def local_file(file: ImageNetFile) -> Path:
    """The weights in Keras' cache; downloaded where they are not there, or are not what they should be.

    Raises:
        ModelError: they cannot be downloaded.
    """
    path = _folder() / file.name
    if path.is_file() and _is_right(path, file.digest):
        return path
    try:
        with artifacts.completing(path) as temporary:
            _download(file, temporary)
    except (OSError, http.client.HTTPException) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"the ImageNet weights could not be downloaded ({file.url}: {text}); give a local file with "
            "--weights FILE, or start from random weights with --weights none"
        ) from None
    return path


def _folder() -> Path:
    """Where Keras keeps them; it takes another place where it cannot write."""
    elsewhere = Path(tempfile.gettempdir()) / ".keras" / "models"
    try:
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    except RuntimeError:  # this user has no home
        return elsewhere
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    return home / "models" if os.access(existing, os.W_OK) or (home / "models").is_dir() else elsewhere


def _download(file: ImageNetFile, path: Path) -> None:
    with urllib.request.urlopen(file.url, timeout=PATIENCE_S) as answer:
        with path.open("wb") as target:
            shutil.copyfileobj(answer, target)
        promised = answer.headers.get("Content-Length")
    if promised is not None and path.stat().st_size != int(promised):
        raise OSError(f"only {path.stat().st_size} of {promised} bytes came")
    if not _is_right(path, file.digest):
        raise OSError("what came is not what Keras expects, by its hash")


def _is_right(path: Path, digest: str | None) -> bool:
    if digest is None:
        return True
    kind = "sha256" if len(digest) == 64 else "md5"
    with path.open("rb") as content:
        return hashlib.file_digest(content, kind).hexdigest() == digest
