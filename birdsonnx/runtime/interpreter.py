"""Another Python that runs birdsonnx, as a process of its own."""

import os
import sys
from collections.abc import Sequence


def command(words: Sequence[str | os.PathLike[str]]) -> list[str]:
    """`birdsonnx words…` by this Python. Modules that happen to lie in the working folder, which may be a
    folder of photos of others, are not found: `python -m` alone would run a `simplejpeg.py` there."""
    return [sys.executable, "-P", "-m", "birdsonnx", *(os.fspath(word) for word in words)]
