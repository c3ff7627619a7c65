"""MPI in a few calls that mean the same with one rank and without mpi4py.

A rank that waits sleeps: a blocking MPI call would burn a core that another rank computes on (on 2 cores,
rank 0's work took 0.44 s beside one waiting rank and 1.06 s beside three).
"""

import contextlib
import os
import pickle
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from birdsonnx.artifacts.temporary import place_of_processes
from birdsonnx.errors import BirdsonnxError, InstallationError, RankError
from birdsonnx.extras import how_to_install
from birdsonnx.runtime import far_hosts, on_demand, sums_in_parts
from birdsonnx.runtime.launchers import is_first_launched, is_started_by_srun, launched_processes
from birdsonnx.runtime.on_demand import Work
from birdsonnx.runtime.sums_in_parts import Steps, add_up_in_parts
from birdsonnx.runtime.waiting import Watch

if TYPE_CHECKING:
    from birdsonnx.runtime.rounded_sums import RoundedSums

T = TypeVar("T")

BYTES_PER_MESSAGE = 2**30
"""Of a large value; MPI 3 counts in 32 bits."""

MAX_IN_FLIGHT = 16
"""Messages a rank may have sent that rank 0 has not taken yet: bounds memory on both sides."""

LONGEST_S = 0.01
"""Sleep between two looks at what is waited for: 0.5 % of a core; 1 ms takes 3 %."""

MOVING_S = 30e-6
"""A look that took so long has moved data, which over a network goes on in no other way."""

LONGEST_MOVING_S = 0.5e-3
"""Sleep after such a look: sockets hold no more than some 100 KB. To sum 100 MB over two hosts takes 124 ms
then instead of 294, over 10 Gbit/s 184 instead of 499, and 10 MB over 1 Gbit/s 96 instead of 168."""


class Ranks:
    """One process: rank 0 of 1. Also the interface of `MPIRanks`."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def first(self, produce: Callable[[], T]) -> T:
        """Rank 0's result on every rank; an error of rank 0's is raised on every rank."""
        return produce()

    def everyone(self, value: T) -> list[T]:
        """Each rank's value, in rank order, on every rank."""
        return [value]

    def together(self, produce: Callable[[], T]) -> T:
        """Each rank's own result; if any rank fails, the first failing rank's error is raised on all."""
        result: T | None = None
        error: BirdsonnxError | None = None
        try:
            result = produce()
        except BirdsonnxError as caught:
            error = caught
        errors = [problem for problem in self.everyone(error) if problem is not None]
        if errors:
            errors[0].agreed = True
            raise errors[0]
        return cast(T, result)

    def require_same(self, fact: Hashable, what: str) -> None:
        """Raises RankError, on all ranks, where one has another fact than rank 0; None is no fact."""
        first, *others = self.everyone((socket.gethostname(), fact))
        for rank, (host, other) in enumerate(others, 1):
            if None not in (first[1], other) and other != first[1]:
                error = RankError(
                    f"rank {rank} on {host} has other {what} than rank 0 on {first[0]}; give all the same"
                )
                error.agreed = True
                raise error

    def add_up(self, values: npt.NDArray[Any]) -> None:
        """Replace `values`, `[n]`, by the sum over all ranks, in place."""

    def add_up_rounded(self, values: npt.NDArray[np.float32]) -> None:
        """The same sum, of numbers that go from host to host in bfloat16 (`rounded_sums`)."""

    def copy_from(self, owner: int, values: npt.NDArray[Any]) -> None:
        """Fill `values` with those of rank `owner`, in place."""

    def merge(self, items: Iterable[T]) -> Iterator[T]:
        """On rank 0: its own items and, as they arrive, those of the others. Elsewhere: nothing."""
        return iter(items)

    def on_demand(self, work: Work[Any, Any]) -> Generator[None]:
        """Let the ranks do a work unit by unit: each gets the next one when it is ready for it, so that who
        is faster does more. Comes up on rank 0 again and again, whenever results may have come; on the others
        never."""
        for result in work.compute(on_demand.alone(work), None):
            work.keep(result)
            yield

    def share(self, count: int) -> range:
        """The indices of `count` things that belong to this rank; the shares differ by at most one."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sharing(self, resource: Hashable) -> list[int]:
        """The ranks that name the same resource on the same host, in rank order."""
        here = (socket.gethostname(), resource)
        return [rank for rank, other in enumerate(self.everyone(here)) if other == here]

    def on_this_host(self) -> int:
        """The number of ranks on this host."""
        return len(self.sharing("host"))

    def wait_for_all(self) -> None:
        """Sleep until every rank has come here."""

    def limit_waiting(self, seconds: float | None) -> None:
        """Let every wait for a rank that takes longer raise RankError; None: none does."""

    def wait_quietly(self) -> None:
        """Say nothing where a rank is waited for long, as it is where one works alone."""

    def pass_on(self, signal: int) -> None:
        """Send a signal that this rank got to rank 0, where that is within reach."""

    def report_loss(self, report: Callable[[RankError], None]) -> None:
        """What to call, in a thread of its own, where a rank or a whole host has vanished; it is to `abort`.
        Only ranks of several hosts watch over each other."""

    def abort(self, code: int) -> None:
        """End all ranks because this one cannot go on; does nothing where there is no other."""


class MPIRanks(Ranks):
    """The processes that `mpirun` or `srun` started."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._comm = mpi.COMM_WORLD
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        self._watch = Watch(self._comm)
        self._rounded_sums: RoundedSums | None = None
        everyone = self.everyone((place_of_processes(), os.getpid(), socket.gethostname()))
        self._first = everyone[0][:2]
        hosts = [host for _, _, host in everyone]
        self._far = far_hosts.FarHosts(self.rank, hosts)
        if len(set(hosts)) > 1:
            self._far.start(self.first(self._far.listen))

    def first(self, produce: Callable[[], T]) -> T:
        value: Any = None
        error: BirdsonnxError | None = None
        if self.is_first:
            try:
                value = produce()
            except BirdsonnxError as caught:
                caught.agreed = True
                error = caught
        value, error = self._from_first((value, error))
        if error is not None:
            error.agreed = True
            raise error
        result: T = value
        return result

    def everyone(self, value: T) -> list[T]:
        content = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        self._meet(self._comm.Iallgather(np.array([content.size], np.int64), sizes))
        contents = np.empty(sizes.sum(), np.uint8)
        self._meet(self._comm.Iallgatherv(content, [contents, sizes]))
        ends = sizes.cumsum().tolist()
        return [pickle.loads(contents[start:end].tobytes()) for start, end in pairwise([0, *ends])]

    def _from_first(self, value: T) -> T:
        content = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)
        size = np.array([content.size], np.int64)
        self.copy_from(0, size)
        if not self.is_first:
            content = np.empty(size[0], np.uint8)
        for start in range(0, content.size, BYTES_PER_MESSAGE):
            self.copy_from(0, content[start : start + BYTES_PER_MESSAGE])
        received: T = pickle.loads(content.data)
        return received

    def add_up(self, values: npt.NDArray[Any]) -> None:
        def begin(part: npt.NDArray[Any]) -> Steps:
            yield self._comm.Iallreduce(self._mpi.IN_PLACE, part, op=self._mpi.SUM)

        self._add_up(values, begin, sums_in_parts.PART_BYTES)

    def add_up_rounded(self, values: npt.NDArray[np.float32]) -> None:
        if self._rounded_sums is None:
            from birdsonnx.runtime.rounded_sums import RoundedSums  # ml_dtypes takes 8 ms

            self.wait_for_all()  # what comes now would burn a core where a rank does not come
            self._rounded_sums = RoundedSums(self._mpi, self._comm)
        self._add_up(values, self._rounded_sums.add_up, self._rounded_sums.part_bytes)

    def _add_up(
        self, values: npt.NDArray[Any], begin: Callable[[npt.NDArray[Any]], Steps], part_bytes: int
    ) -> None:
        self._watch.meetings += 1  # one, however many requests this rank has of it
        add_up_in_parts(values, begin, self._sleep_until_done, part_bytes)

    def copy_from(self, owner: int, values: npt.NDArray[Any]) -> None:
        self._meet(self._comm.Ibcast(values, root=owner))

    def merge(self, items: Iterable[T]) -> Iterator[T]:
        return self._collect(items) if self.is_first else self._send(items)

    def _collect(self, items: Iterable[T]) -> Iterator[T]:
        finished = 0
        for item in items:
            yield item
            while self._comm.iprobe():
                message = self._comm.recv()
                finished += message is None
                if message is not None:
                    yield message
        while finished < self.size - 1:
            delay = 1e-4
            wait = self._watch.begin()
            while not self._comm.iprobe():
                time.sleep(delay)
                delay = min(2 * delay, 0.02)
                wait.look()
            message = self._comm.recv()
            finished += message is None
            if message is not None:
                yield message
        self.wait_for_all()

    def _send(self, items: Iterable[T]) -> Iterator[T]:
        sent: deque[Any] = deque()
        for item in _then_none(items):
            sent.append(self._comm.isend(item, dest=0))
            while len(sent) > MAX_IN_FLIGHT:
                self._sleep_until_done(sent.popleft())
        for request in sent:
            self._sleep_until_done(request)
        self.wait_for_all()  # or rank 0 would count this end as one of its next call
        return iter(())

    def on_demand(self, work: Work[Any, Any]) -> Generator[None]:
        if self.is_first:
            yield from on_demand.hand_out(self._comm, self._watch, work)
        else:
            on_demand.take_part(self._comm, self._watch, work)
        self.wait_for_all()  # or messages of this work would be taken for those of the next

    def wait_for_all(self) -> None:
        self._meet(self._comm.Ibarrier())

    def limit_waiting(self, seconds: float | None) -> None:
        self._watch.limit_s = seconds

    def wait_quietly(self) -> None:
        self._watch.is_quiet = True

    def pass_on(self, signal: int) -> None:
        place, process = self._first
        if place == place_of_processes():
            with contextlib.suppress(OSError):
                os.kill(process, signal)

    def report_loss(self, report: Callable[[RankError], None]) -> None:
        self._far.report = report

    def abort(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._far.leave(far_hosts.ENDING)
        time.sleep(0.2)  # MPICH's launcher loses lines that it has not forwarded when the job ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MPI says that it aborts; the reason has been said
        if self._far.has_lost and far_hosts.launches_by_itself(os.getppid()):
            far_hosts.end(code)
        self._comm.Abort(code)

    def _meet(self, collective: Any) -> None:
        self._watch.meetings += 1
        self._sleep_until_done(collective)

    def _sleep_until_done(self, request: Any) -> None:
        # The first looks only give way to other processes: a sum over few weights takes microseconds.
        # After that the sleep grows with the wait, as long as nothing comes.
        for _ in range(50):
            if _completed(request):
                return
            time.sleep(0)
        delay = 2e-5
        wait = self._watch.begin()
        while True:
            looked = time.perf_counter()
            if _completed(request):
                return
            if time.perf_counter() - looked > MOVING_S:
                delay = min(delay, LONGEST_MOVING_S)
            time.sleep(delay)
            delay = min(1.5 * delay, LONGEST_S)
            wait.look()


def _completed(request: Any) -> bool:
    outcome = request.test() if hasattr(request, "test") else request.Test()
    return bool(outcome[0]) if isinstance(outcome, tuple) else bool(outcome)


def _then_none(items: Iterable[T]) -> Iterator[T | None]:
    yield from items
    yield None


def join() -> Ranks:
    """The ranks this process belongs to; MPI is loaded only where a launcher started several processes.

    Raises:
        InstallationError: the launcher started several processes that MPI does not join, so that each
            would take itself for rank 0 of 1.
    """
    launched = launched_processes()
    if launched == 1:
        return Ranks()
    try:
        mpi = import_mpi()
    except (ImportError, RuntimeError) as error:
        raise _alone(
            f"{launched} processes were launched, but MPI is not available here "
            f"({' '.join(str(error).split())}); {how_to_install('mpi')}, or start one process"
        ) from None
    if mpi.COMM_WORLD.Get_size() == 1:
        library = library_of(mpi)
        raise _alone(
            f"the launcher started {launched} processes, but MPI ({library}) sees each one alone: mpirun "
            "belongs to another MPI than mpi4py; use the mpirun beside this Python"
        )
    return MPIRanks(mpi)


def import_mpi() -> Any:
    """mpi4py's MPI, which initialises it; without its warning about a foreign launcher, which `join` reports.

    Raises:
        ImportError: no mpi4py.
        RuntimeError: mpi4py without an MPI library.
    """
    if is_started_by_srun():
        # Several ranks on one host: MPICH 5.0 gets no shared memory through the PMI-2 of Slurm 22.05 ("Out of
        # memory"), or waits for ever. Without it they talk by the network, as ranks on several hosts do.
        os.environ.setdefault("MPIR_CVAR_NOLOCAL", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        from mpi4py import MPI
    return MPI


def library_of(mpi: Any) -> str:
    """Name and version of the MPI library that mpi4py uses."""
    return " ".join(str(mpi.Get_library_version()).split("\n")[0].strip("\0 ").split())


def _alone(message: str) -> InstallationError:
    error = InstallationError(message)
    error.agreed = not is_first_launched()  # the processes cannot talk; the first of them speaks for all
    return error


def sum_as_float64(ranks: Ranks, *numbers: float) -> tuple[float, ...]:
    """The sums of a few numbers over all ranks."""
    values = np.array(numbers, np.float64)
    ranks.add_up(values)
    return tuple(values.tolist())
