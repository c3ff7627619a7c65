"""The cost model against values worked out by hand."""

import pytest

from benchmarks.cost_model import (
    Link,
    Sums,
    Work,
    doublings,
    measured,
    rounded_sum_s,
    step_s,
    sum_s,
    table,
)

LINK = Link([(0, 0.001), (100_000, 0.002), (200_000, 0.003)])
"""1 ms and 100 MB/s."""
ADDED = 1e9


def test_messages_lie_on_lines_between_those_that_were_measured():
    link = measured({"100": 0.004, "0": 0.001, "1100": 0.006})
    assert (link.latency_s, link.bytes_per_s) == (0.001, pytest.approx(500_000))
    assert link.message_s(50) == pytest.approx(0.0025)
    assert link.message_s(600) == pytest.approx(0.005)
    assert link.message_s(2100) == pytest.approx(0.008)


@pytest.mark.parametrize(
    ("size", "hosts", "expected"),
    [
        (1e6, 1, 0.0),
        (2_000, 2, 0.001 + 0.00002 + 0.000002),  # one exchange of all
        (2_000, 8, 3 * (0.001 + 0.00002 + 0.000002)),
        (1e6, 2, 2 * (0.001 + 0.005) + 0.0005),  # halves there, halves back, one half added
        (1e6, 4, 2 * (0.001 + 0.005) + 2 * (0.001 + 0.0025) + 0.00075),
        (1e6, 3, 2 * 0.011 + 0.001 + 2 * (0.001 + 0.005) + 0.0005),  # the third gives all, and gets all
    ],
)
def test_sums(size, hosts, expected):
    assert sum_s(size, hosts, LINK, ADDED) == pytest.approx(expected)


def test_parts_wait_while_others_travel():
    # 40 MB are parts of 16, 16 and 8. Two hosts: a part is two messages of its half, which wait 1.16 ms each.
    parts = [2 * (0.001 + 0.080), 2 * 0.081 - 0.00232, 2 * 0.041 - 0.00232]
    assert sum_s(4e7, 2, LINK, 1e15) == pytest.approx(sum(parts))
    # In bfloat16, 10 hosts' parts are of 20 MB, and their messages of 1 MB.
    parts = [18 * 0.011, 18 * (0.011 - 0.00116)]
    assert rounded_sum_s(4e7, 10, LINK, 1e15) == pytest.approx(sum(parts))


def test_the_first_part_finds_a_link_that_rested():
    rested = measured({"0": 0.001, "1e6": 0.011}, {"0": 0.003, "1e6": 0.023})
    assert sum_s(1e6, 2, rested, 1e15) == pytest.approx(2 * 0.013)
    warm = sum_s(4e7, 2, Link(rested.points), 1e15)
    assert sum_s(4e7, 2, rested, 1e15) - warm == pytest.approx(2 * (0.002 + 8e6 * 1e-8))


def test_sums_of_halves():
    # Four hosts: three messages of an eighth of the bytes, twice, and what the core does.
    assert rounded_sum_s(1e6, 4, LINK, 2e8) == pytest.approx(6 * (0.001 + 0.00125) + 0.005)
    assert rounded_sum_s(1e6, 1, LINK, 2e8) == 0.0


def test_steps():
    work = Work("all", 1000, photo_s=0.1, rest_s=0.5)
    assert step_s(work, 32, 1, 0.0) == pytest.approx(3.7)
    assert step_s(work, 32, 3, 0.25) == pytest.approx(1.1 + 0.5 + 0.25)  # the largest share is 11 photos
    assert step_s(work, 32, 4, 0.25, ranks_per_core=2) == pytest.approx(2 * 1.3 + 0.25)


def test_the_table_says_where_more_ranks_are_slower():
    work = Work("all", 25_000_000, photo_s=0.1, rest_s=0.0)  # 100 MB: 1 s of sums from two hosts on
    lines = table([work], {"slow": LINK}, Sums(1e12, 1e12), 32, 4).splitlines()
    assert doublings(9) == [2, 4, 8]
    fp32 = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    seconds = (1.6 + 1.000, 0.8 + 1.500)
    assert fp32[:3] == ["all", "slow", "fp32"]
    assert fp32[3:5] == [f"{3.2 / 2 / seconds[0]:.2f}", f"{3.2 / 4 / seconds[1]:.2f}"]
    assert fp32[5] == "4"
