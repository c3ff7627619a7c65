"""Sums whose numbers go from host to host in bfloat16: against float64, on ranks of several hosts."""

import json
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.runtime.rounded_sums import bfloat16, part_bytes, round_into, sum_in_order
from tests.command import succeed_json
from tests.runtime.test_ranks import on_ranks

HALF_A_STEP = 2.0**-8
"""By which rounding changes a value at the most, of its size."""
APART = {"MPIR_CVAR_NOLOCAL": "1"}
"""MPICH takes each rank for one on a host of its own."""


def halves_of(values: np.ndarray) -> np.ndarray:
    out = np.empty(len(values), bfloat16)
    round_into(out, values)
    return out


def widened(halves: np.ndarray) -> np.ndarray:
    """By bits: bfloat16 is the upper half of float32."""
    return (halves.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def test_rounding_is_to_the_nearest_and_to_even():
    bits = np.random.default_rng(0).integers(0, 2**32, 3000, np.uint32)
    ties = np.array([0x3F808000, 0x3F818000, 0xBF808000, 0x00008000, 0x00018000], np.uint32)
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3e38)]
    found = widened(halves_of(values)).astype(np.float64)
    below = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((values.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    for value, low, high, each in zip(
        *(x.astype(np.float64) for x in (values, below, above)), found, strict=True
    ):
        to_low, to_high = abs(value - low), abs(high - value)
        even = low if not (np.float32(low).view(np.uint32) >> 16) & 1 else high
        assert each == (even if to_low == to_high else low if to_low < to_high else high)


def test_what_is_no_number_stays_none():
    bits = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0xFF800000], np.uint32)
    found = widened(halves_of(bits.view(np.float32)))
    assert np.isnan(found[:4]).all()
    assert found[4:].tolist() == [np.inf, -np.inf]


def test_parts_are_added_in_their_order():
    parts = halves_of(np.random.default_rng(1).normal(size=3 * 70_001).astype(np.float32)).reshape(3, -1)
    one, two, three = (widened(row) for row in parts)
    assert sum_in_order(parts).tobytes() == ((one + two) + three).tobytes()


def test_messages_do_not_get_short_where_there_are_many_hosts():
    assert [part_bytes(hosts) for hosts in (2, 8, 64)] == [16_000_000, 16_000_000, 128_000_000]


@pytest.mark.parametrize(
    ("size", "hosts", "per_part"),
    [(4, [0, 0, 1, 1], 4_004), (3, [0, 1, 2], 400), (3, [0, 0, 1], 400), (2, [0, 0], 1_600)],
)
def test_all_ranks_get_the_same_sum(size, hosts, per_part):
    """Though some have more to do with each part than others."""
    found = on_ranks(
        size,
        f"""
        from birdsonnx.runtime import rounded_sums, sums_in_parts
        sums_in_parts.PART_BYTES, rounded_sums.BYTES_PER_HOST = {per_part}, 8
        from birdsonnx.runtime.rounded_sums import RoundedSums
        ranks._rounded_sums = RoundedSums(ranks._mpi, ranks._comm, {hosts}[ranks.rank])
        values = np.random.default_rng(ranks.rank).normal(size=1001).astype(np.float32)
        again = values.copy()
        ranks.add_up_rounded(values)
        ranks.add_up_rounded(again)
        assert values.tobytes() == again.tobytes()
        result = [ranks._watch.meetings, values.tolist()]
        """,
    )
    meetings, found = zip(*found, strict=True)
    assert len(set(meetings)) == 1  # or they would be told to wait for each other
    assert all(each == found[0] for each in found)
    given = [np.random.default_rng(rank).normal(size=1001).astype(np.float32) for rank in range(size)]
    exact = np.sum(given, axis=0, dtype=np.float64)
    sent = sum(
        np.abs(np.sum([given[rank] for rank in range(size) if hosts[rank] == host], axis=0, dtype=np.float64))
        for host in set(hosts)
    )
    error = np.abs(np.array(found[0]) - exact)
    if len(set(hosts)) == 1:  # nothing is rounded
        assert error.max() < 1e-6
    else:
        assert (error <= HALF_A_STEP * (1 + HALF_A_STEP) * (sent + np.abs(exact)) + 1e-6).all()
        assert error.max() > 1e-4


def losses(*settings: str, **environment: str) -> list[float]:
    words = [word for each in settings for word in ("--set", each)]
    succeed_json("train", "config.json", "--overwrite", *words, ranks=2, environment=environment)
    return [
        float(line.split()[3]) for line in Path("out_train.txt").read_text().splitlines() if line[0] != "#"
    ]


def test_training_over_hosts_with_gradients_in_bfloat16(workspace, training_config):
    Path("config.json").write_text(json.dumps(training_config(birdsonnx={"cache": "kept"})))
    exact = losses(**APART)
    rounded = losses("birdsonnx.exchange_precision=bf16", **APART)
    assert rounded == losses("birdsonnx.exchange_precision=bf16", **APART)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
    assert losses("birdsonnx.exchange_precision=bf16") == pytest.approx(exact, rel=1e-5)  # one host
