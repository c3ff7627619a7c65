"""The cost model's constants, measured over links of 1 and 10 Gbit/s with 50 us and 1 ms, and its error.

    sudo python -m benchmarks.link_check [--hosts 2 4] [--rounds 3] [--json CONSTANTS.json]

On one machine: hosts are namespaces (`hosts.py`), their links are shaped by `tc` and delayed by
`delayed_link.py`, each host has one core, and shares it where there are more hosts than cores. There the
forward and backward passes are a sleep of known length (`paced_steps.py`), which needs no core; the sum and
all else are the product's. Constants: the link's are those of pairs of hosts that exchange messages, with as
many hosts as the steps; what a core adds per second, and what a step takes besides the sleep and the sum, are
CPU seconds, while all hosts do the same: they share one memory. The model then says what the steps take; none
of its constants is fitted to steps.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import cost_model, hosts
from benchmarks.cost_model import Sums, Work

LINKS = {
    "1 Gbit/s, 50 us": (1.0, 50.0),
    "1 Gbit/s, 1 ms": (1.0, 1000.0),
    "10 Gbit/s, 50 us": (10.0, 50.0),
    "10 Gbit/s, 1 ms": (10.0, 1000.0),
}
"""Speed, and delay from one host to the other."""
WEIGHTS = {"head": 24_588, "conv5": 14_980_108, "all": 23_532_620}
"""Of ResNet50 with folded BatchNorm and 12 classes."""
OVER_TCP = {"MPIR_CVAR_CH4_NETMOD": "ofi"}
"""MPICH's other way over TCP, UCX, at times sends in one direction only, on 3 hosts or more always: to sum
16 M numbers on 4 hosts over 1 Gbit/s takes it 1.6 s instead of 1.0."""
PHOTO_MS = 10.0
BATCH = 32
ROOT = Path(__file__).resolve().parents[1]
MPIRUN = str(Path(sys.executable).parent / "mpirun")


@contextlib.contextmanager
def delayed(made: Sequence[hosts.Host], delay_us: float) -> Iterator[None]:
    """Hold back what each of these hosts sends."""
    with contextlib.ExitStack() as stack:
        for host in made:
            words = [sys.executable, str(ROOT / "benchmarks/delayed_link.py"), str(delay_us)]
            holder = stack.enter_context(host.start(words, stdout=subprocess.PIPE))
            stack.callback(holder.kill)
            assert holder.stdout is not None
            if not holder.stdout.readline():
                raise SystemExit(f"{host.name}: the link cannot be delayed")
        yield


def steps(count: int, gbit_per_s: float, delay_us: float, settings: Sequence[str] = ()) -> Any:
    """What `paced_steps` finds on so many hosts."""
    words = [str(PHOTO_MS), str(BATCH), ",".join(map(str, WEIGHTS.values())), *settings]
    return json.loads(
        on_hosts(count, gbit_per_s, delay_us, ["benchmarks.paced_steps", *words]).splitlines()[-1]
    )


def on_hosts(count: int, gbit_per_s: float, delay_us: float, module: Sequence[str]) -> str:
    """What a module of Python prints that runs on so many hosts, one rank on each. Raises SystemExit."""
    cores = sorted(os.sched_getaffinity(0))
    own = [{cores[number % len(cores)]} for number in range(count)]
    with hosts.made(count, gbit_per_s, own) as made, delayed(made, delay_us):
        names = ",".join(host.name for host in made)
        program = [MPIRUN, "-hosts", names, "-ppn", "1", "-np", str(count), sys.executable, "-m", *module]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **OVER_TCP}
        done = made[0].run(program, env=environment)
    if done.returncode:
        raise SystemExit(f"{count} hosts: {done.stderr.strip()[-500:]}")
    return done.stdout


def medians(rounds: Sequence[Any]) -> Any:
    """Of the numbers at each place of equal JSON values."""
    if isinstance(rounds[0], dict):
        return {key: medians([each[key] for each in rounds]) for key in rounds[0]}
    return statistics.median(rounds)


def report(found: dict[str, Any], cores: int) -> tuple[str, float]:
    """The table of modelled and measured seconds, and the largest error of a step."""
    worst = 0.0
    lines = ["| link | hosts | trained | exchange in | step: model | of it the sum | measured | error |"]
    lines.append("|---" * 8 + "|")
    for name in LINKS:
        for key, figures in found[name].items():
            hosts_count, precision = int(key.split()[0]), key.split()[1]
            link = cost_model.measured(figures["exchanges_s"], figures["rested_s"])
            crowd = max(1.0, hosts_count / cores)  # what computes takes so much longer; the sleep does not
            sums = Sums(figures["added_per_s"] / crowd, figures["rounded_per_s"] / crowd)
            for title, weights in WEIGHTS.items():
                rest_s = crowd * figures["rest_s"][str(weights)]
                work = Work(title, weights, PHOTO_MS / 1e3, rest_s)
                summed = sums.seconds(work, hosts_count, link, precision)
                step = cost_model.step_s(work, BATCH, hosts_count, summed)
                measured = figures["steps_s"][str(weights)]
                worst = max(worst, abs(step / measured - 1))
                lines.append(
                    f"| {name} | {hosts_count} | {title} | {precision} | {1e3 * step:.1f} ms "
                    f"| {1e3 * summed:.1f} | {1e3 * measured:.1f} | {step / measured - 1:+.1%} |"
                )
    return "\n".join(lines), worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write constants and figures here")
    options = parser.parse_args()
    if (reason := hosts.why_not()) is not None:
        raise SystemExit(f"no hosts can be made here: {reason}")
    rounds: dict[str, list[Any]] = {}
    for number in range(options.rounds):
        for name, link in LINKS.items():
            for count, precision in itertools.product(options.hosts, ("fp32", "bf16")):
                print(f"round {number + 1}: {name}, {count} hosts, {precision}", file=sys.stderr)
                found = steps(count, *link, [f"birdsonnx.exchange_precision={precision}"])
                rounds.setdefault(f"{name}/{count} {precision}", []).append(found)
    found: dict[str, Any] = {name: {} for name in LINKS}
    for key, each in rounds.items():
        name, kind = key.rsplit("/", 1)
        found[name][kind] = medians(each)
    if options.json is not None:
        two = {name: found[name][f"{min(options.hosts)} fp32"] for name in LINKS}
        measured = cost_model.measured
        links = {n: asdict(measured(each["exchanges_s"], each["rested_s"])) for n, each in two.items()}
        rates = {
            rate: statistics.median(each[rate] for each in two.values())
            for rate in ("added_per_s", "rounded_per_s")
        }
        written = {"links": links, **rates, "measured": found}
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    text, worst = report(found, len(os.sched_getaffinity(0)))
    print(f"{text}\n\nlargest error of a step: {worst:.1%}")


if __name__ == "__main__":
    main()
