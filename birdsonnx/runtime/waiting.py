"""Who is waited for: a rank that hangs, or is stopped, would else be waited for in silence.

MPI does not say which rank has not come to a collective call. So whoever has waited for long tells all others
at which call it stands; those that stand there too answer, and who does not is waited for. Nothing of this
happens before: a wait of milliseconds costs a look at the clock.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from birdsonnx.errors import RankError

PATIENCE_S = 60.0
"""After so long the line is printed."""
SHORT_S = 0.1
"""Before that nobody looks for messages of other ranks."""
ANSWERS_S = 2.0
"""For answers to come."""


class Watch:
    """Of one rank.

    Args:
        comm: the ranks' communicator; every rank makes its watch at the same time.
    """

    def __init__(self, comm: Any) -> None:
        self._comm, made = comm.Idup()  # its messages are no one else's
        while not made.Test():  # `Dup` would burn a core, and hear of no signal, where a rank does not come
            time.sleep(SHORT_S / 100)
        self._sent: list[Any] = []
        self._places = [-1] * self._comm.Get_size()
        self.meetings = 0
        """How many collective calls this rank has come to."""
        self.limit_s: float | None = None
        """How long to wait for a rank at the most."""
        self.is_quiet = False
        """Whether long waits are what is meant to be."""

    def begin(self) -> "Wait":
        """A wait that begins now."""
        return Wait(self)

    def tell(self) -> None:
        """Tell the others at which call this rank stands."""
        me = self._comm.Get_rank()
        others = (rank for rank in range(self._comm.Get_size()) if rank != me)
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent += [self._comm.isend((me, self.meetings), dest=rank) for rank in others]
        self._places[me] = self.meetings

    def listen(self) -> bool:
        """Take what the others told; whether one of them waits at this rank's call, or beyond."""
        heard = False
        while self._comm.iprobe():
            rank, place = self._comm.recv()
            self._places[rank] = max(self._places[rank], place)
            heard = heard or place >= self.meetings
        return heard

    def absent(self) -> list[int]:
        """The ranks that are not known to stand where this one does."""
        return [rank for rank, place in enumerate(self._places) if place < self.meetings]

    def speaks_first(self) -> bool:
        """Whether this is the first rank of those that wait."""
        absent = self.absent()
        waiting = (rank for rank in range(self._comm.Get_size()) if rank not in absent)
        return bool(next(waiting, None) == self._comm.Get_rank())


class Wait:
    """One wait: `look` is called again and again."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._started = time.monotonic()
        self._told = False
        self._said = False

    def look(self) -> None:
        """Say it once where it takes long.

        Raises:
            RankError: it takes longer than the limit.
        """
        waited_s = time.monotonic() - self._started
        watch = self._watch
        if waited_s < SHORT_S or watch.is_quiet:
            return
        limit_s = float("inf") if watch.limit_s is None else watch.limit_s
        tell_s = min(PATIENCE_S, max(limit_s - ANSWERS_S, limit_s / 2))
        if (watch.listen() or waited_s >= tell_s) and not self._told:
            watch.tell()
            self._told = True
        if waited_s >= limit_s and (absent := watch.absent()):
            raise RankError(
                f"{_named(absent)} did not come within {limit_s:g} s (birdsonnx.rank_timeout): stopped, or "
                "still at work that takes longer"
            )
        if waited_s >= PATIENCE_S + ANSWERS_S and not self._said:
            self._said = True
            if (absent := watch.absent()) and watch.speaks_first():
                text = f"birdsonnx: waiting for {_named(absent)} for {waited_s:.0f} s now"
                print(text, file=sys.stderr, flush=True)


def _named(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
