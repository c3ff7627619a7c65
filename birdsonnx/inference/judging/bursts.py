"""One answer for all photos of a sequence: `--sequence-gap`.

The answer is the mean of the photos' log-probabilities, normalised again, `m - log sum exp m`: the geometric
mean of their probabilities, to which a photo that is sure adds more than one that is not. Their score `known`
is the mean too.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import ConfigError
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.sequences import Sequences, find
from birdsonnx.inference.naming import Named
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

LONGEST_GAP_S = 86_400
"""A day: who asks for more means no burst."""


@dataclass(frozen=True)
class Answer:
    """What a photo is to be judged by: what the network said of it, or of its sequence."""

    log_probs: npt.NDArray[np.float32]
    """float32 `(classes,)`."""
    known: float | None
    sequence: int | None = None
    """The number of the sequence that it is of, from 1."""


def require_gap(gap_s: float | None) -> None:
    """Raises ConfigError where `--sequence-gap` is no time between photos."""
    if gap_s is not None and not (math.isfinite(gap_s) and 0 <= gap_s <= LONGEST_GAP_S):
        raise ConfigError(
            f"--sequence-gap {gap_s:g}: give the seconds that may lie between photos of one sequence, from 0 "
            f"to {LONGEST_GAP_S}"
        )


def sequences_of(
    photos: Sequence[Photo], gap_s: float | None, ranks: Ranks, audience: Audience
) -> Sequences | None:
    """Which photos are to share an answer; None: none. Every rank calls this. Raises DataError where no photo
    says when it was taken."""
    if gap_s is None:
        return None
    return find(photos, timedelta(seconds=gap_s), "--sequence-gap", ranks, audience)


def sharing(outcomes: Iterable[Named], sequences: Sequences | None) -> Iterator[tuple[Named, Answer | None]]:
    """Each photo's outcome, and what it is to be judged by; None where it was refused.

    They may come in any order, as from several ranks. With `sequences` a photo waits until those of its
    sequence are all here; then they come one after the other. One that was refused waits for nobody, and has
    no part in the mean.
    """
    missing = None if sequences is None else np.bincount(sequences.numbers)
    waiting: dict[int, list[Named]] = {}
    for each in outcomes:
        if each.log_probs is None:
            yield each, None
        elif sequences is None:
            yield each, Answer(each.log_probs, each.known)
        if sequences is None or missing is None:
            continue
        number = int(sequences.numbers[each.index])
        missing[number] -= 1
        if each.log_probs is not None:
            waiting.setdefault(number, []).append(each)
        if missing[number] == 0 and number in waiting:
            members = waiting.pop(number)
            answer = _of_all(members, number + 1)
            yield from ((member, answer) for member in members)


def _of_all(members: list[Named], number: int) -> Answer:
    # Sums of floats depend on their order: always that of the list, however many ranks answered.
    members.sort(key=lambda member: member.index)
    known = [member.known for member in members if member.known is not None]
    rows = [member.log_probs for member in members if member.log_probs is not None]
    return Answer(mean_of(rows), sum(known) / len(known) if known else None, number)


def mean_of(rows: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The mean of some log-probabilities, float32 `(classes,)` each, as log-probabilities again; of one row
    the row itself."""
    if len(rows) == 1:
        return rows[0]
    mean = np.mean(rows, axis=0, dtype=np.float64)
    mean -= mean.max()
    normalised: npt.NDArray[np.float32] = (mean - np.log(np.exp(mean).sum())).astype(np.float32)
    return normalised
