"""Work that rank 0 hands out on demand, with three ranks under mpirun."""

import pytest

from birdsonnx.runtime.ranks import Ranks
from tests.runtime.test_ranks import on_three_ranks

WORK = """
import sys

class Work:
    '''Squares of numbers; `seconds` of a rank's for each, and `most` under way.'''

    def __init__(self, count, seconds=(0, 0, 0), most=10**9, size=1):
        self.count, self.seconds, self.most, self.size = count, seconds, most, size
        self.next, self.under_way, self.kept, self.most_ahead = 0, {}, [], 0

    def may_take(self, rank):
        oldest = min(self.under_way, default=self.next)
        return self.under_way.get(oldest) in (None, rank) or self.next - oldest < self.most

    def take(self, rank):
        if self.next == self.count:
            return None
        self.under_way[self.next] = rank
        self.most_ahead = max(self.most_ahead, self.next - min(self.under_way))
        self.next += 1
        return self.next - 1

    def compute(self, units, meanwhile):
        for unit in units:
            end = time.monotonic() + self.seconds[ranks.rank]
            while time.monotonic() < end:
                if meanwhile is not None:
                    meanwhile()
                time.sleep(0.001)
            yield unit, (unit * unit, ranks.rank, bytes(self.size))

    def keep(self, done):
        unit, result = done
        del self.under_way[unit]
        self.kept.append([unit, *result[:2]])

def worked(*words, **options):
    work = Work(*words, **options)
    steps = sum(1 for _ in ranks.on_demand(work))
    return work, steps
"""


def on_ranks(body: str) -> list[object]:
    return on_three_ranks(WORK + body)


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_everything_once_on_rank_0(count):
    first, *others = on_ranks(f"work, steps = worked({count})\nresult = [sorted(work.kept), steps]")
    assert [[unit, square] for unit, square, _ in first[0]] == [[n, n * n] for n in range(count)]
    assert others == [[[], 0]] * 2


def test_who_is_slow_gets_less():
    [kept, *_] = on_ranks("result = worked(60, (0.01, 0.2, 0.01))[0].kept")
    counts = [sum(rank == each for _, _, rank in kept) for each in range(3)]
    assert sum(counts) == 60
    assert counts[1] < min(counts[0], counts[2])


def test_large_results_and_one_work_after_the_other():
    body = """
    result = []
    for turn in range(3):
        work, _ = worked(12, size=3_000_000)
        result.append(sorted(work.kept) if ranks.is_first else [])
    """
    [first, *_] = on_ranks(body.replace("\n    ", "\n"))
    for kept in first:
        assert [[unit, square] for unit, square, _ in kept] == [[n, n * n] for n in range(12)]


@pytest.mark.parametrize("slow", [0, 1])
def test_nobody_goes_too_far_ahead(slow):
    seconds = [0.001, 0.001, 0.001]
    seconds[slow] = 0.1
    body = f"work, _ = worked(60, {seconds}, most=5)\nresult = [work.most_ahead, len(work.kept)]"
    [[ahead, count], *_] = on_ranks(body)
    assert count == 60
    assert ahead <= 5 + 2  # the oldest's own rank may hold two more


def test_alone():
    class Work:
        def __init__(self) -> None:
            self.left, self.kept = [1, 2, 3], list[tuple[int, int]]()

        def may_take(self, _rank: int, /) -> bool:
            return True

        def take(self, _rank: int, /) -> int | None:
            return self.left.pop(0) if self.left else None

        def compute(self, numbers, meanwhile, /):
            assert meanwhile is None
            return ((number, -number) for number in numbers)

        def keep(self, done: tuple[int, int], /) -> None:
            self.kept.append(done)

    work = Work()
    assert [len(work.kept) for _ in Ranks().on_demand(work)] == [1, 2, 3]
    assert work.kept == [(1, -1), (2, -2), (3, -3)]
