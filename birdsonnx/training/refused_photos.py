"""Photos that cannot be used, found by several ranks: each rank raises the same list."""

from collections.abc import Sequence

from birdsonnx.errors import DataError
from birdsonnx.runtime.ranks import Ranks


def require_none(ranks: Ranks, refused: Sequence[str], photos: int) -> None:
    """Raise DataError on every rank if any rank refused one of the `photos`; all of them are listed, each
    once, whatever the number of its views."""
    every = list(dict.fromkeys(reason for found in ranks.everyone(list(refused)) for reason in found))
    if not every:
        return
    start = f"{len(every)} of {photos} photos cannot be used, nothing was trained; repair or remove "
    error = DataError(f"{start}it: {every[0]}") if len(every) == 1 else DataError(f"{start}them:", every)
    error.agreed = True
    raise error
