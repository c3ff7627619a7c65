"""Units of work that rank 0 hands out to whoever is ready for the next one, itself included.

A rank asks for its next unit when it gets one, so that it holds two at the most and never waits for the
answer. Rank 0 computes as well: it answers between its own results and, while it waits for those, every
`sessions.LOOK_S`. All of MPI is in the main thread, and nothing of it blocks: a large message goes on where
both sides look at it, and who computes looks in the same way.
"""

import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from birdsonnx.runtime.waiting import Watch

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")

SHORTEST_S, LONGEST_S = 1e-4, 0.02
"""Sleeps between two looks, which grow with the wait."""

UNITS_LEFT_PER_RANK = 16
"""Towards the end units get smaller: so many of them would do what is left. 10,000 photos on four ranks, of
which one takes eight times as long, take 2 % longer than without any waiting (simulated), with 4 16 %."""


def next_size(left: int, largest: int, ranks: int) -> int:
    """How many pieces of those that are left the next unit has, 1 to `largest`."""
    return max(1, min(largest, left // (UNITS_LEFT_PER_RANK * ranks)))


class Work(Protocol[UnitT, ResultT]):
    """What is to be done in units."""

    def may_take(self, rank: int, /) -> bool:
        """Whether a rank may have a unit now, or hear that there is none; asked on rank 0. It must be true of
        the rank that has the oldest unit without a result: it may hold that result until it gets another."""

    def take(self, rank: int, /) -> UnitT | None:
        """The next unit, for a rank; None: there is none any more. Asked on rank 0."""

    def compute(
        self, units: Iterator[UnitT], meanwhile: Callable[[], None] | None, /
    ) -> Iterator[tuple[UnitT, ResultT]]:
        """The units that this rank gets, in order, each with its result. It calls `meanwhile` while it waits
        for results."""

    def keep(self, done: tuple[UnitT, ResultT], /) -> None:
        """Take a unit's result; on rank 0, as soon as it is there, in any order."""


class Kind(IntEnum):
    """What a rank tells rank 0."""

    ASKS = 0
    RESULT = 1
    ENDS = 2


def alone(work: Work[UnitT, Any]) -> Iterator[UnitT]:
    """The units of the only rank."""
    while (unit := work.take(0)) is not None:
        yield unit


class _Counter:
    """Where rank 0 serves the others."""

    def __init__(self, comm: Any, work: Work[Any, Any]) -> None:
        self._comm = comm
        self._work = work
        self._working = comm.Get_size() - 1
        self._asking: list[int] = []
        self._arriving: list[Any] = []
        self._answers: list[Any] = []

    @property
    def is_over(self) -> bool:
        """Whether all others have heard that there is no more, and all that they did is here."""
        return not (self._working or self._arriving or self._answers)

    def serve(self) -> bool:
        """Take what has come, and answer as far as the work lets; whether anything has come."""
        came = False
        while (message := self._comm.improbe()) is not None:
            self._arriving.append(message.irecv())
        arriving, self._arriving = self._arriving, []
        for request in arriving:
            is_here, content = request.test()
            if is_here:
                came = True
                self._take(*content)
            else:
                self._arriving.append(request)
        asking, self._asking = self._asking, []
        for rank in asking:
            if self._work.may_take(rank):
                self._answers.append(self._comm.isend(self._work.take(rank), dest=rank))
            else:
                self._asking.append(rank)
        self._answers = [each for each in self._answers if not each.test()[0]]
        return came

    def _take(self, kind: Kind, rank: int, content: Any) -> None:
        if kind == Kind.ASKS:
            self._asking.append(rank)
        elif kind == Kind.RESULT:
            self._work.keep(content)
        else:
            self._working -= 1


def hand_out(comm: Any, watch: Watch, work: Work[Any, Any]) -> Iterator[None]:
    """Rank 0's part: its own units, and the others' results. Raises RankError where a rank is waited for in
    vain."""
    counter = _Counter(comm, work)

    def units() -> Iterator[Any]:
        while True:
            counter.serve()
            _sleep_until(lambda: work.may_take(0), counter.serve, watch)
            unit = work.take(0)
            if unit is None:
                return
            yield unit

    def look() -> None:
        counter.serve()

    for done in work.compute(units(), look):
        work.keep(done)
        counter.serve()
        yield
    while not counter.is_over:
        _sleep_until(lambda: counter.serve() or counter.is_over, lambda: None, watch)
        yield


def take_part(comm: Any, watch: Watch, work: Work[Any, Any]) -> None:
    """Another rank's part. Raises RankError where rank 0 is waited for in vain."""
    rank = comm.Get_rank()
    sending: list[Any] = []

    def tell(kind: Kind, content: Any = None) -> None:
        sending.append(comm.isend((kind, rank, content), dest=0))

    def send_on() -> None:
        sending[:] = [each for each in sending if not each.test()[0]]

    def units() -> Iterator[Any]:
        tell(Kind.ASKS)
        while True:
            _sleep_until(lambda: comm.iprobe(source=0), send_on, watch)
            unit = comm.recv(source=0)
            if unit is None:
                return
            tell(Kind.ASKS)
            yield unit

    def is_sent() -> bool:
        send_on()
        return not sending

    for done in work.compute(units(), send_on):
        tell(Kind.RESULT, done)
    tell(Kind.ENDS)
    _sleep_until(is_sent, lambda: None, watch)


def _sleep_until(is_so: Callable[[], Any], meanwhile: Callable[[], object], watch: Watch) -> None:
    delay, wait = SHORTEST_S, watch.begin()
    while not is_so():
        meanwhile()
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_S)
        wait.look()
