"""The few calls of MPI: alone in this process, and with three ranks under mpirun."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdsonnx.errors import DataError
from birdsonnx.extras import how_to_install
from birdsonnx.runtime.launchers import RANK_VARIABLES, SIZE_VARIABLES, launched_processes
from birdsonnx.runtime.ranks import (
    LONGEST_MOVING_S,
    LONGEST_S,
    MAX_IN_FLIGHT,
    MOVING_S,
    MPIRanks,
    Ranks,
    join,
    sum_as_float64,
)
from tests.command import MPIRUN


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch) -> None:
    for name in SIZE_VARIABLES + RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def python(body: str, *launcher: Any, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a process of its own."""
    Path("script.py").write_text(textwrap.dedent(body))
    return subprocess.run(
        [*map(str, launcher), sys.executable, "script.py"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def on_ranks(size: int, body: str) -> list[Any]:
    """What `body`, which knows `ranks`, leaves in `result` on each rank."""
    head = "import json, time\nfrom pathlib import Path\nimport numpy as np\n"
    head += "from birdsonnx.errors import *\nfrom birdsonnx.runtime.ranks import *\nranks = join()\n"
    tail = "\nPath(f'{ranks.rank}.json').write_text(json.dumps(result))\n"
    done = python(head + textwrap.dedent(body) + tail, MPIRUN, "-np", size)
    assert done.returncode == 0, done.stderr
    return [json.loads(Path(f"{rank}.json").read_text()) for rank in range(size)]


def on_three_ranks(body: str) -> list[Any]:
    return on_ranks(3, body)


# --- One process ----------------------------------------------------------------------------------------


def test_alone_is_rank_0_of_1():
    ranks = join()
    assert type(ranks) is Ranks
    assert (ranks.rank, ranks.size, ranks.is_first) == (0, 1, True)
    assert ranks.first(lambda: 7) == ranks.together(lambda: 7) == 7
    assert ranks.everyone("value") == ["value"]
    assert list(ranks.merge(iter("abc"))) == ["a", "b", "c"]
    assert list(ranks.share(5)) == [0, 1, 2, 3, 4]
    assert ranks.sharing("resource") == [0]
    assert ranks.on_this_host() == 1
    assert sum_as_float64(ranks, 1, 2.5) == (1.0, 2.5)
    values = np.array([1.0, 2.0])
    ranks.add_up(values)
    ranks.copy_from(0, values)
    ranks.wait_for_all()
    ranks.abort(3)
    np.testing.assert_array_equal(values, [1.0, 2.0])


@pytest.mark.parametrize("method", ["first", "together"])
@pytest.mark.parametrize("kind", [DataError, ZeroDivisionError])
def test_an_error_of_the_only_rank(method, kind):
    def fail() -> None:
        raise kind("broken")

    with pytest.raises(kind, match="broken"):
        getattr(Ranks(), method)(fail)


def test_alone_loads_no_mpi():
    body = """
        import sys
        from birdsonnx.runtime.ranks import join
        join()
        print("mpi4py" in sys.modules)
    """
    assert python(body).stdout == "False\n"


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(1, 64))
def test_shares_cover_everything_once_and_evenly(count, size):
    shares = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        shares.append(ranks.share(count))
    assert [index for share in shares for index in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- Launchers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 1),
        ({"PMI_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, 3),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 2),
        ({"PMI_SIZE": "1", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"PMI_SIZE": ""}, 1),
        ({"PMI_SIZE": "many"}, 1),
        ({"PMI_SIZE": "-3"}, 1),
        ({"SLURM_NTASKS": "8"}, 1),
    ],
)
def test_launched_processes(monkeypatch, environment, expected):
    assert launched_processes(environment) == expected
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == expected


JOIN = """
    import sys
    {before}
    from birdsonnx.errors import InstallationError
    from birdsonnx.runtime.ranks import join
    try:
        join()
    except InstallationError as error:
        print(error.agreed, error)
"""


@pytest.mark.parametrize(
    ("size", "rank"),
    [("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_launcher_that_mpi_does_not_see_is_refused(size, rank, number):
    done = python(JOIN.format(before=""), **{size: "2", rank: str(number)})
    agreed, _, message = done.stdout.partition(" ")
    assert "the launcher started 2 processes" in message
    assert "sees each one alone" in message
    assert agreed == str(number == 1)
    assert done.stderr == ""


def test_a_launcher_without_mpi4py_is_refused():
    done = python(JOIN.format(before="sys.modules['mpi4py'] = None"), OMPI_COMM_WORLD_SIZE="2")
    assert "2 processes were launched, but MPI is not available here" in done.stdout
    assert how_to_install("mpi") in done.stdout


# --- Three ranks ----------------------------------------------------------------------------------------


def test_ranks_know_their_places():
    result = on_three_ranks("result = [ranks.rank, ranks.size, ranks.is_first, list(ranks.share(7))]")
    assert result == [[0, 3, True, [0, 1]], [1, 3, False, [2, 3]], [2, 3, False, [4, 5, 6]]]


def test_first_gives_rank_0s_result_to_all():
    body = """
        calls = []
        def produce():
            calls.append(ranks.rank)
            return {"of": ranks.rank}
        result = [ranks.first(produce), calls]
    """
    assert on_three_ranks(body) == [[{"of": 0}, [0]], [{"of": 0}, []], [{"of": 0}, []]]


@pytest.mark.parametrize(
    ("method", "failing", "expected"),
    [("first", [0, 1, 2], 0), ("together", [1, 2], 1), ("together", [2], 2), ("together", [0, 1, 2], 0)],
)
def test_an_error_is_raised_on_all_ranks_and_agreed(method, failing, expected):
    body = f"""
        def produce():
            if ranks.rank in {failing}:
                raise DataError(f"rank {{ranks.rank}} failed")
        try:
            ranks.{method}(produce)
        except BirdsonnxError as error:
            result = [type(error).__name__, str(error), error.agreed]
    """
    assert on_three_ranks(body) == [["DataError", f"rank {expected} failed", True]] * 3


def test_together_gives_each_rank_its_own_result():
    assert on_three_ranks("result = ranks.together(lambda: 10 * ranks.rank)") == [0, 10, 20]


def test_everyone_gives_all_values_in_rank_order():
    assert (
        on_three_ranks("result = ranks.everyone({'of': ranks.rank})")
        == [[{"of": 0}, {"of": 1}, {"of": 2}]] * 3
    )


@pytest.mark.parametrize("kind", ["float32", "float64", "int64"])
def test_add_up(kind):
    body = f"""
        values = (np.arange(1000) * (ranks.rank + 1)).astype("{kind}")
        ranks.add_up(values)
        result = [values.tolist(), str(values.dtype), sum_as_float64(ranks, ranks.rank, 0.5)]
    """
    assert on_three_ranks(body) == [[[6 * value for value in range(1000)], kind, [3.0, 1.5]]] * 3


@pytest.mark.parametrize("owner", [0, 2])
def test_copy_from(owner):
    body = f"""
        values = np.full((2, 3), ranks.rank, np.float32)
        ranks.copy_from({owner}, values)
        result = values.tolist()
    """
    assert on_three_ranks(body) == [[[owner] * 3] * 2] * 3


@pytest.mark.parametrize("counts", [(5, 5, 5), (0, 3 * MAX_IN_FLIGHT, 1), (4, 0, 0), (0, 0, 0)])
def test_merge_brings_everything_to_rank_0(counts):
    body = f"""
        items = ((ranks.rank, number, "x" * 2000) for number in range({counts}[ranks.rank]))
        result = [item[:2] for item in ranks.merge(items)]
    """
    merged, *others = on_three_ranks(body)
    assert others == [[], []]
    for rank, count in enumerate(counts):
        assert [number for owner, number in merged if owner == rank] == list(range(count))
    assert len(merged) == sum(counts)


def test_merges_one_after_the_other():
    body = """
        result = []
        for turn in range(5):
            found = list(ranks.merge(iter([(turn, ranks.rank)] * 3)))
            result.append(sorted(found))
            ranks.wait_for_all()
    """
    merged, *others = on_three_ranks(body)
    assert merged == [[[turn, rank] for rank in range(3) for _ in range(3)] for turn in range(5)]
    assert others == [[[]] * 5] * 2


def test_ranks_that_share_a_resource():
    body = """
        folder = ("a", "b", "a")[ranks.rank]
        result = [ranks.sharing(folder), ranks.sharing(frozenset({1, 2})), ranks.on_this_host()]
    """
    assert on_three_ranks(body) == [[[0, 2], [0, 1, 2], 3], [[1], [0, 1, 2], 3], [[0, 2], [0, 1, 2], 3]]


def test_waiting_ranks_sleep():
    body = """
        ranks.wait_for_all()
        before = time.process_time()
        time.sleep(0.8 * ranks.is_first)
        ranks.wait_for_all()
        result = time.process_time() - before
    """
    assert max(on_three_ranks(body)) < 0.1


@pytest.mark.parametrize(
    ("look_s", "longest_s"), [(1e-6, LONGEST_S), (2 * MOVING_S, LONGEST_MOVING_S)], ids=["idle", "moving"]
)
def test_who_waits_looks_often_while_data_moves(monkeypatch, look_s, longest_s):
    now_s, slept, looks = [0.0], [], iter(range(200))

    def look() -> bool:
        now_s[0] += look_s
        return next(looks) == 199

    watch = SimpleNamespace(begin=lambda: SimpleNamespace(look=lambda: None))
    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])
    monkeypatch.setattr("time.sleep", slept.append)
    MPIRanks._sleep_until_done(SimpleNamespace(_watch=watch), SimpleNamespace(Test=look))
    assert slept[-1] == longest_s


def test_abort_ends_all_ranks():
    body = """
        import time
        from birdsonnx.runtime.ranks import join
        ranks = join()
        if ranks.rank == 1:
            print("the cause", flush=True)
            ranks.abort(5)
        time.sleep(50)
    """
    started = time.perf_counter()
    done = python(body, MPIRUN, "-np", 3)
    assert done.returncode != 0
    assert "the cause" in done.stdout
    assert time.perf_counter() - started < 20
