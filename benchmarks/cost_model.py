"""What a step of training takes on many hosts: a model, whose constants are measured (`link_check.py`).

A step is the forward and backward passes over a rank's share of the batch, one sum of all gradients over the
ranks, and what every rank does whatever their number is: to divide, the norm, the optimizer.

    step = photo_s * largest share + sum_s(bytes, hosts, link) + rest_s

One rank per host, each with a link of its own to a switch that carries them all. The sum is MPICH's: for up
to 2,048 bytes recursive doubling, beyond that Rabenseifner's reduce-scatter and allgather by recursive
halving and doubling; where the number of hosts is no power of two, those beyond it give their values to a
neighbour first, and get the sum at the end. Formulas: Thakur, Rabenseifner and Gropp, "Optimization of
Collective Communication Operations in MPICH", International Journal of High Performance Computing
Applications 19 (1), 2005, sections 4.4 and 4.5. Of several ranks on a host MPICH sums first, through shared
memory, and one of them speaks for all. All of this for one part of the numbers after the other, two of which
are under way (`runtime.sums_in_parts`).

    python -m benchmarks.cost_model LINKS.json WORKS.json [--ranks 128]

prints the efficiency up to so many ranks.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdsonnx.runtime.rounded_sums import part_bytes
from birdsonnx.runtime.sums_in_parts import PART_BYTES, UNDER_WAY

SHORT = 2_048
"""Bytes, up to which MPICH doubles recursively (MPIR_CVAR_ALLREDUCE_SHORT_MSG_SIZE)."""
ASKED_FOR = 16_000
"""Bytes of a message that MPICH asks for first."""


@dataclass(frozen=True)
class Link:
    """What a message costs between two hosts that send to each other at the same time.

    `points` are bytes and seconds, as measured, in ascending order, with straight lines between them, since
    a longer message is asked for first and costs more than one latency; beyond them the last line goes on.
    `rested` are those after a pause: TCP then begins slowly again (RFC 5681, section 4.1).
    """

    points: Sequence[Sequence[float]]
    rested: Sequence[Sequence[float]] = ()

    @property
    def after_rest(self) -> "Link":
        """For the first messages of a step."""
        return Link(self.rested or self.points)

    @property
    def latency_s(self) -> float:
        """Of the shortest message, one way, with what MPI and the kernel do."""
        return self.points[0][1]

    @property
    def bytes_per_s(self) -> float:
        """In each direction, of the longest messages."""
        (size, seconds), (longer, later) = self.points[-2:]
        return (longer - size) / (later - seconds)

    @property
    def wait_s(self) -> float:
        """Of a message that is asked for first, but has next to no bytes."""
        return self.message_s(ASKED_FOR)

    def message_s(self, size: float) -> float:
        """No less than its bytes take: shapers let a short one pass faster where there was nothing before."""
        (last, seconds), sizes = self.points[-1], [point[0] for point in self.points]
        if size > last:
            return seconds + (size - last) / self.bytes_per_s
        between = float(np.interp([size], sizes, [point[1] for point in self.points])[0])
        return max(between, size / self.bytes_per_s)


@dataclass(frozen=True)
class Work:
    """What is trained, on one core per rank.

    Attributes:
        weights: how many numbers are trained.
        photo_s: forward and backward passes over one photo.
        rest_s: of each step, besides those and the sum.
    """

    name: str
    weights: int
    photo_s: float
    rest_s: float


def sum_s(size: float, hosts: int, link: Link, added_per_s: float) -> float:
    """Seconds to sum `size` bytes of each host on all hosts; `added_per_s` is how many bytes a core adds."""
    messages = 2 * (hosts.bit_length() - 1)
    return in_parts_s(size, link, messages, lambda part, way: part_s(part, hosts, way, added_per_s))


def part_s(size: float, hosts: int, link: Link, added_per_s: float) -> float:
    """The same for one part."""
    if hosts == 1:
        return 0.0
    rounds = hosts.bit_length() - 1
    power = 2**rounds
    seconds = 0.0
    if hosts > power:
        seconds += 2 * link.message_s(size) + size / added_per_s
    if size <= SHORT:
        return seconds + rounds * (link.message_s(size) + size / added_per_s)
    halves = sum(link.message_s(size / 2**part) for part in range(1, rounds + 1))
    return seconds + 2 * halves + size * (power - 1) / power / added_per_s


def rounded_sum_s(size: float, hosts: int, link: Link, rounded_per_s: float) -> float:
    """The same for gradients that travel in bfloat16 (`runtime.rounded_sums`): every host gets one share of
    everyone's (MPICH exchanges long messages pair by pair), sums it, and gives the sum to all (round a ring).

    `size` is that of the float32 numbers; of `rounded_per_s` of those bytes a core rounds, adds up and widens
    one after the other."""
    messages = 2 * (hosts - 1)

    def rounded_part_s(part: float, way: Link) -> float:
        return messages * way.message_s(part / 2 / hosts) + part / rounded_per_s if messages else 0.0

    return in_parts_s(size, link, messages, rounded_part_s, part_bytes(hosts))


def in_parts_s(
    size: float,
    link: Link,
    messages: int,
    part_s: Callable[[float, Link], float],
    part_bytes: float = PART_BYTES,
) -> float:
    """Parts after each other. But while one waits for its messages to be asked for and to come, the other's
    bytes travel."""
    whole, rest = divmod(size, part_bytes)
    first, *further = [part_bytes] * int(whole) + [rest] * (rest > 0)
    seconds = part_s(first, link.after_rest)
    for part in further:
        alone = part_s(part, link)
        seconds += max(alone / UNDER_WAY, alone - messages * link.wait_s)
    return seconds


def step_s(work: Work, batch: int, ranks: int, sum_s: float, ranks_per_core: float = 1.0) -> float:
    """Seconds of a step over `batch` photos; where ranks share cores, all that is computed takes longer."""
    share = -(-batch // ranks)
    return (work.photo_s * share + work.rest_s) * max(1.0, ranks_per_core) + sum_s


def measured(times_s: Mapping[str, float], rested_s: Mapping[str, float] | None = None) -> Link:
    """A link from seconds of exchanges by bytes, which are JSON's keys."""
    points, rested = (
        sorted((float(size), seconds) for size, seconds in each.items()) for each in (times_s, rested_s or {})
    )
    return Link(points, rested)


def doublings(most: int) -> list[int]:
    """2, 4, 8, … up to `most`."""
    return [2**power for power in range(1, most.bit_length()) if 2**power <= most]


@dataclass(frozen=True)
class Sums:
    """How fast a core adds (`sum_s`), and rounds (`rounded_sum_s`), in bytes of float32 per second."""

    added_per_s: float
    rounded_per_s: float

    def seconds(self, work: Work, hosts: int, link: Link, precision: str) -> float:
        if precision == "bf16":
            return rounded_sum_s(4 * work.weights, hosts, link, self.rounded_per_s)
        return sum_s(4 * work.weights, hosts, link, self.added_per_s)


def table(works: Sequence[Work], links: Mapping[str, Link], sums: Sums, batch: int, most: int) -> str:
    """Efficiency, as Markdown: with `batch` photos in all, or where it is negative, so many for each rank."""
    counts = doublings(most)
    lines = [f"| trained | link | exchange in | {' | '.join(map(str, counts))} | fastest at |"]
    lines.append("|---" * (len(counts) + 4) + "|")
    for work, (name, link), precision in itertools.product(works, links.items(), ("fp32", "bf16")):
        speeds = []
        for ranks in counts:
            total = -batch * ranks if batch < 0 else batch
            summed = sums.seconds(work, ranks, link, precision)
            speeds.append(total / step_s(work, total, ranks, summed))
        alone = abs(batch) / step_s(work, abs(batch), 1, 0.0)
        found = [speed / ranks / alone for speed, ranks in zip(speeds, counts, strict=True)]
        fastest = counts[max(range(len(counts)), key=speeds.__getitem__)]
        shown = " | ".join(f"{each:.2f}" for each in found)
        lines.append(f"| {work.name} | {name} | {precision} | {shown} | {fastest} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("links", type=Path, help="what `link_check --json` wrote")
    parser.add_argument("works", type=Path, help="what `scaling --json` wrote")
    parser.add_argument("--ranks", type=int, default=128)
    options = parser.parse_args()
    read = json.loads(options.links.read_text())
    links = {name: Link(**link) for name, link in read["links"].items()}
    sums = Sums(read["added_per_s"], read["rounded_per_s"])
    works = [Work(**work) for work in json.loads(options.works.read_text())["works"]]
    for batch, what in ((256, "256 photos per step over all ranks"), (-32, "32 photos per step and rank")):
        print(f"{what}\n\n{table(works, links, sums, batch, options.ranks)}\n")


if __name__ == "__main__":
    main()
