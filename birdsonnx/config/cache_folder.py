"""Where birdsonnx keeps what it need not compute again."""

import os
from pathlib import Path

from birdsonnx.errors import ConfigError


def user_cache() -> Path:
    """The user's own cache folder for birdsonnx.

    Raises:
        ConfigError: this user has no home folder, as one of a container may.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "birdsonnx"
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder, where the cache would be; set neural_network.birdsonnx.cache to a "
            "folder (or false), or XDG_CACHE_HOME"
        ) from None
