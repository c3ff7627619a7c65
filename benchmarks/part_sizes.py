"""Sums of 94 MB over ranks at once, and in parts of several sizes (`runtime.sums_in_parts`).

    mpirun -np 2 python -m benchmarks.part_sizes                              on this machine
    sudo python -m benchmarks.part_sizes --hosts 2 --link '10 Gbit/s, 1 ms'   over a link of `link_check`

Interleaved rounds; medians, as Markdown.
"""

import argparse
import sys

import numpy as np

from benchmarks import hosts, link_check, paced_steps
from birdsonnx.runtime import ranks as joining
from birdsonnx.runtime import sums_in_parts
from birdsonnx.runtime.ranks import Ranks

NUMBERS = link_check.WEIGHTS["all"]
SETTINGS = [(10**12, 1), *((size, count) for size in (8, 16, 32) for count in (1, 2, 4))]
"""MB of a part, and how many are under way; the first: all at once."""
ROUNDS = 5


def measure(ranks: Ranks) -> str:
    """The table."""
    values, seconds = np.zeros(NUMBERS, np.float32), dict[tuple[int, int], list[float]]()
    for _ in range(ROUNDS):
        for size, count in SETTINGS:
            sums_in_parts.PART_BYTES, sums_in_parts.UNDER_WAY = size * 10**6, count
            once = paced_steps.timed(ranks, lambda: ranks.add_up(values), 1)
            seconds.setdefault((size, count), []).append(once)
    lines = ["| MB of a part | under way | ms |", "|---|---|---|"]
    for (size, count), found in seconds.items():
        lines.append(f"| {size if size < 10**6 else 'all'} | {count} | {1e3 * float(np.median(found)):.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--link", choices=link_check.LINKS, default="10 Gbit/s, 1 ms")
    options = parser.parse_args()
    if options.hosts is None:
        ranks = joining.join()
        table = measure(ranks)
        if ranks.is_first:
            print(table)
    elif (reason := hosts.why_not()) is not None:
        sys.exit(f"no hosts can be made here: {reason}")
    else:
        module = ["benchmarks.part_sizes"]
        print(link_check.on_hosts(options.hosts, *link_check.LINKS[options.link], module))


if __name__ == "__main__":
    main()
