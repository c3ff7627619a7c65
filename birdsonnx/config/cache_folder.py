"""Where birdsonnx keeps what it need not compute again."""

import os
from pathlib import Path


def user_cache() -> Path:
    """The user's own cache folder for birdsonnx."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "birdsonnx"
