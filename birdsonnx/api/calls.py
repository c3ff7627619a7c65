"""What every call of the API does: it joins the ranks of its program."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from birdsonnx.runtime import ranks
from birdsonnx.runtime.ranks import Ranks

if TYPE_CHECKING:
    pass

PathLike = str | os.PathLike[str]

CANNOT = 2
"""Exit code of ranks that one of them ends, as of the verbs."""


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks of this program. An error that not all of them have ends the others, which would wait."""
    joined = ranks.join()
    try:
        yield joined
    except BaseException as error:
        if joined.size > 1 and not getattr(error, "agreed", False):
            traceback.print_exc()
            joined.abort(CANNOT)
        raise
