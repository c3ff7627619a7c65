"""Sums over ranks on several hosts whose numbers go from host to host in bfloat16, half as many bytes.

    the ranks of a host sum in float32, through shared memory; the first of them speaks for all
    each host gives each other host one part of its numbers, rounded
    each host sums its part of everyone's, in float32 and in the order of the ranks
    each host gives its part's sum, rounded, to all; all their ranks get it

and so for one part of a long array after the other (`sums_in_parts`). So a number is rounded twice however
many hosts there are, and all ranks get the same bits. A host sends as many bytes as in MPICH's own sum of
numbers half as wide, but in more messages: one to each host, twice.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from birdsonnx.runtime import sums_in_parts
from birdsonnx.runtime.sums_in_parts import Steps

Flat = npt.NDArray[np.float32]
Halves = npt.NDArray[Any]
"""Of bfloat16."""
BYTES_PER_HOST = 2_000_000
"""Of a part at the least: its messages, one to each host, have half as many bytes: 8 ms over 1 Gbit/s, of
which a latency of 1 ms is little."""
BITS = np.uint16
"""As what MPI sends them, which has no such numbers."""


@np.errstate(over="ignore", invalid="ignore")  # who asks for the sum looks whether it is finite
def round_into(halves: Halves, values: npt.ArrayLike) -> None:
    """Each value's nearest bfloat16, to even where two are as near, as IEEE 754 rounds; NaN stays NaN."""
    halves[...] = values


@np.errstate(over="ignore", invalid="ignore")
def sum_in_order(parts: Halves) -> Flat:
    """The sum of the rows of `parts`, `[hosts, n]`, from the first to the last, in float32."""
    summed: Flat = parts[0].astype(np.float32)
    for row in parts[1:]:
        summed += row
    return summed


def part_bytes(hosts: int) -> int:
    """How many bytes of float32 are summed at a time."""
    return max(sums_in_parts.PART_BYTES, BYTES_PER_HOST * hosts)


class RoundedSums:
    """Of some ranks; all of them make this at the same time.

    Args:
        mpi: mpi4py's module.
        comm: the ranks' communicator.
        host: a number that ranks of the same host share; default: those that share memory.
    """

    def __init__(self, mpi: Any, comm: Any, host: int | None = None) -> None:
        self._mpi = mpi
        self._local = comm.Split_type(mpi.COMM_TYPE_SHARED) if host is None else comm.Split(host)
        speaks = self._local.Get_rank() == 0
        self._hosts = comm.Split(0 if speaks else mpi.UNDEFINED, comm.Get_rank())
        self.part_bytes = part_bytes(comm.allreduce(int(speaks)))

    def add_up(self, values: Flat) -> Steps:
        """Replace `values` by their sum over all ranks, in place, as these requests are waited for."""
        if self._local.Get_size() > 1:
            own = self._mpi.IN_PLACE if self._hosts else values
            yield self._local.Ireduce(own, values, op=self._mpi.SUM, root=0)
        if self._hosts and self._hosts.Get_size() > 1:
            yield from self._add_up_hosts(values)
        if self._local.Get_size() > 1:
            yield self._local.Ibcast(values, root=0)

    def _add_up_hosts(self, values: Flat) -> Steps:
        hosts = self._hosts.Get_size()
        part = -(-len(values) // hosts)
        out, into = np.zeros((2, hosts, part), bfloat16)
        round_into(out.reshape(-1)[: len(values)], values)
        yield self._hosts.Ialltoall(out.view(BITS), into.view(BITS))
        round_into(out[0], sum_in_order(into))
        yield self._hosts.Iallgather(out[0].view(BITS), into.view(BITS))
        values[...] = into.reshape(-1)[: len(values)]
