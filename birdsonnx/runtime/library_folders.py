"""Where libraries put files of their own: not into the user's home, which is not theirs to fill."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from birdsonnx.artifacts.temporary import scratch_folder
from birdsonnx.config.cache_folder import user_cache
from birdsonnx.errors import ConfigError


def set_for_matplotlib() -> None:
    """Before it is imported: its list of fonts takes seconds to make, and is kept in our cache."""
    with contextlib.suppress(ConfigError):  # no home: it takes a temporary folder
        os.environ.setdefault("MPLCONFIGDIR", str(user_cache() / "matplotlib"))
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would warn of that


@contextlib.contextmanager
def given_to_keras() -> Iterator[None]:
    """While it is imported, and matplotlib with it: it writes its settings, and would read those of others.

    Raises:
        ArtifactError: no temporary folder can be made.
    """
    set_for_matplotlib()
    if "keras" in sys.modules or "KERAS_HOME" in os.environ:
        yield
        return
    with scratch_folder() as folder:
        os.environ["KERAS_HOME"] = str(folder)
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
