"""Sums over ranks on several hosts whose numbers go from host to host in bfloat16, half as many bytes.

    the ranks of a host sum in float32, through shared memory; the first of them speaks for all
    each host gives each other host one part of its numbers, rounded
    each host sums its part of everyone's, in float32 and in the order of the ranks
    each host gives its part's sum, rounded, to all; all their ranks get it

So a number is rounded twice however many hosts there are, and all ranks get the same bits. A host sends as
many bytes as in MPICH's own sum of numbers half as wide, but in more messages: one to each host, twice.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Flat = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]
"""bfloat16: the upper halves of float32."""

BLOCK = 65_536
"""Numbers at a time, so that they stay in cache."""
NO_NUMBER = 0x7FC0


def round_to_halves(values: Flat, out: Halves) -> None:
    """Each value's nearest bfloat16, to even where two are as near, as IEEE 754 rounds; NaN stays NaN."""
    scratch = np.empty(min(BLOCK, len(values)), np.uint32)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        bits, rounded = block.view(np.uint32), scratch[: len(block)]
        np.right_shift(bits, 16, out=rounded)
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        halves = out[start : start + len(block)]
        np.copyto(halves, rounded, casting="unsafe")
        if np.isnan(block).any():  # of which the bits above can make a number
            halves[np.isnan(block)] = NO_NUMBER


def widen(halves: Halves, out: Flat) -> None:
    """The same values as float32."""
    bits = out.view(np.uint32)
    np.copyto(bits, halves)
    bits <<= 16


@np.errstate(over="ignore", invalid="ignore")  # who asks for the sum looks whether it is finite
def add_in_order(parts: npt.NDArray[np.uint16], out: Flat) -> None:
    """The sum of the rows of `parts`, `[hosts, len(out)]`, from the first to the last."""
    scratch = np.empty(min(BLOCK, len(out)), np.float32)
    for start in range(0, len(out), BLOCK):
        block = out[start : start + BLOCK]
        widen(parts[0, start : start + len(block)], block)
        for row in parts[1:]:
            further = scratch[: len(block)]
            widen(row[start : start + len(block)], further)
            block += further


class RoundedSums:
    """Of some ranks; all of them make this at the same time.

    Args:
        mpi: mpi4py's module.
        comm: the ranks' communicator.
        meet: waits for a collective call.
        host: a number that ranks of the same host share; default: those that share memory.
    """

    def __init__(self, mpi: Any, comm: Any, meet: Callable[[Any], None], host: int | None = None) -> None:
        self._mpi, self._meet = mpi, meet
        self._local = comm.Split_type(mpi.COMM_TYPE_SHARED) if host is None else comm.Split(host)
        speaks = self._local.Get_rank() == 0
        self._hosts = comm.Split(0 if speaks else mpi.UNDEFINED, comm.Get_rank())
        self._out = self._into = np.empty(0, np.uint16)

    def add_up(self, values: Flat) -> None:
        """Replace `values` by their sum over all ranks, in place."""
        if self._local.Get_size() > 1:
            own = self._mpi.IN_PLACE if self._hosts else values
            self._meet(self._local.Ireduce(own, values, op=self._mpi.SUM, root=0))
        if self._hosts and self._hosts.Get_size() > 1:
            self._add_up_hosts(values)
        if self._local.Get_size() > 1:
            self._meet(self._local.Ibcast(values, root=0))

    def _add_up_hosts(self, values: Flat) -> None:
        hosts = self._hosts.Get_size()
        part = -(-len(values) // hosts)
        if len(self._out) != hosts * part:
            self._out, self._into = np.zeros(hosts * part, np.uint16), np.zeros(hosts * part, np.uint16)
        round_to_halves(values, self._out[: len(values)])
        self._meet(self._hosts.Ialltoall(self._out, self._into))
        summed = np.empty(part, np.float32)
        add_in_order(self._into.reshape(hosts, part), summed)
        round_to_halves(summed, self._out[:part])
        self._meet(self._hosts.Iallgather(self._out[:part], self._into))
        for start in range(0, len(values), BLOCK):
            block = values[start : start + BLOCK]
            widen(self._into[start : start + len(block)], block)
