"""Sums part by part: against one call of MPI, and which part has its turn when."""

import numpy as np
import pytest

from birdsonnx.runtime.sums_in_parts import PART_BYTES, UNDER_WAY, add_up_in_parts
from tests.runtime.test_ranks import on_ranks


@pytest.mark.parametrize("size", [2, 3])
def test_the_bits_are_those_of_one_sum(size):
    """Of every element the same numbers are added in the same order."""
    assert (
        on_ranks(
            size,
            """
        from birdsonnx.runtime import sums_in_parts
        sums_in_parts.PART_BYTES = 16_000
        result = True
        for count in 0, 1, 4_000, 4_001, 50_000:
            values = np.random.default_rng(ranks.rank).normal(size=count).astype(np.float32)
            whole = values.copy()
            ranks.add_up(values)
            ranks._comm.Allreduce(ranks._mpi.IN_PLACE, whole)
            result = result and values.tobytes() == whole.tobytes()
        """,
        )
        == [True] * size
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_parts_take_turns(count):
    """Ranks with one step a part and ranks with three begin parts in the same order."""
    for steps in 1, 3:
        begun: list[tuple[int, int]] = []
        waiting: list[tuple[int, int]] = []

        def begin(part, steps=steps, begun=begun, waiting=waiting):
            for step in range(steps):
                begun.append((int(part[0]), step))
                waiting.append(begun[-1])
                yield begun[-1]

        def wait(request, waiting=waiting):
            assert len(waiting) <= UNDER_WAY
            assert waiting.pop(0) == request

        values = np.arange(max(0, (count - 1) * PART_BYTES + (count > 0)), dtype=np.uint8)
        values[::PART_BYTES] = range(count)
        add_up_in_parts(values, begin, wait, PART_BYTES)
        assert sorted(begun) == [(part, step) for part in range(count) for step in range(steps)]
        assert [part for part, step in begun if step == 0] == list(range(count))
        pairs = [begun[start : start + 2 * steps] for start in range(0, len(begun), 2 * steps)]
        for pair in pairs:
            assert [step for _, step in pair] == sorted(step for _, step in pair)
