"""Steps of the training loop whose forward and backward passes are a sleep of known length.

    mpirun -np 2 python -m benchmarks.paced_steps PHOTO_MS BATCH WEIGHTS[,WEIGHTS …] [KEY=VALUE …]

All else is the product's own: the share of the batch, the sum over all ranks, the norm, Adam. So only that is
measured, on any number of cores. Before that, the link: neighbours (0 and 1, 2 and 3, …) send each other
messages of several sizes, all pairs at the same time, and wait as the product does. KEY=VALUE are of the
config. Prints one JSON object: seconds, medians.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from birdsonnx.config import reading
from birdsonnx.runtime import ranks as joining
from birdsonnx.runtime.ranks import MPIRanks, Ranks
from birdsonnx.runtime.rounded_sums import add_in_order, round_to_halves, widen
from birdsonnx.training import loop, optimizers
from birdsonnx.training.epochs import NOT_BEGUN, Batch
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.kernels import Feeds, Run
from birdsonnx.training.parameters import Flat, FlatWeights

WARM, STEPS = 2, 8
SIZES = (8, 1_000, 16_000, 64_000, 1_000_000, 8_000_000, 32_000_000)
"""Bytes of messages."""


class Sleeping:
    """`Kernels` that take so long for a photo."""

    most = 32

    def __init__(self, photo_s: float) -> None:
        self.photo_s = photo_s

    def refresh(self, pool: Executor) -> None:
        """There is nothing that follows from the weights."""

    def runs(self, buffers: Iterable[Flat]) -> list[Run]:
        def run_into(buffer: Flat) -> Run:
            buffer[...] = 1e-3

            def run(feeds: Feeds) -> None:
                time.sleep(self.photo_s * len(feeds["photos"]))

            return run

        return [run_into(buffer) for buffer in buffers]


class Stopwatch:
    """`Listener` of steps."""

    def __init__(self) -> None:
        self.steps_s: list[float] = []
        self.cpu_s = [time.process_time()]

    def on_batch(self, batch: Batch) -> None:
        self.steps_s.append(batch.data_s + batch.compute_s)
        self.cpu_s.append(time.process_time())


def step_s(
    ranks: Ranks, photo_s: float, batch: int, weights: int, settings: list[str]
) -> tuple[float, float]:
    """The medians of some steps: seconds, and of those the CPU's, which a sleep needs nothing of."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        data = {"input_path": ".", "batch_size": batch}
        path.write_text(json.dumps({"neural_network": {"data": data, "optimizer": {"type": "Adam"}}}))
        read = reading.read(path, settings)
    flat = FlatWeights({"weights": np.zeros(weights, np.float32)})
    gradients = Gradients(cast(Any, None), cast(Any, None), flat, 1, Sleeping(photo_s))
    learner = SimpleNamespace(
        weights=flat,
        gradients=gradients,
        optimizer=optimizers.build(read.optimizer, flat),
        loss=SimpleNamespace(divisor=lambda labels: float(len(labels))),
        feeds=lambda _dataset, photos, *_: {"photos": np.asarray(photos)},
    )
    count = batch * (WARM + STEPS)
    stopwatch = Stopwatch()
    training = loop.Training(
        settings=read,
        ranks=ranks,
        threads=1,
        learner=cast(Any, learner),
        train=cast(Any, Photos(count)),
        test=None,
        listener=cast(Any, stopwatch),
        keeper=cast(Any, None),
    )
    training._train(1, 1e-3, NOT_BEGUN)
    cpu_s = [later - earlier for earlier, later in pairwise(stopwatch.cpu_s)]
    return statistics.median(stopwatch.steps_s[WARM:]), statistics.median(cpu_s[WARM:])


class Photos:
    """As much of a `Dataset` as the loop asks for."""

    def __init__(self, count: int) -> None:
        self.labels = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.labels)


def timed(
    ranks: Ranks, call: Callable[[], object], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The median; what only computes is better measured by the CPU's clock, which no other work moves."""
    found = []
    for _ in range(rounds + 1):
        ranks.wait_for_all()
        started = clock()
        call()
        found.append(clock() - started)
    return statistics.median(found[1:])


def exchanges(ranks: MPIRanks) -> dict[int, float]:
    """Seconds of an exchange with the neighbour, by bytes; the longest of all ranks."""
    comm, partner = ranks._comm, ranks.rank ^ 1
    found = {}
    for size in SIZES:
        out, into = np.zeros(size, np.uint8), np.zeros(size, np.uint8)

        def exchange(out: Any = out, into: Any = into) -> None:
            if partner < ranks.size:
                receiving, sending = comm.Irecv(into, partner), comm.Isend(out, partner)
                ranks._sleep_until_done(receiving)
                ranks._sleep_until_done(sending)

        found[size] = max(ranks.everyone(timed(ranks, exchange, 5 if size > 1e6 else 15)))
    return found


def rounding(values: Flat) -> None:
    """What a sum of two hosts' numbers in bfloat16 computes."""
    halves = np.empty(len(values), np.uint16)
    round_to_halves(values, halves)
    add_in_order(halves.reshape(2, -1), values[: len(values) // 2])
    widen(halves, values)


def main() -> None:
    photo_s, batch = float(sys.argv[1]) / 1e3, int(sys.argv[2])
    counts = [int(float(each)) for each in sys.argv[3].split(",")]
    ranks = joining.join()
    found: dict[str, Any] = {"ranks": ranks.size}
    if isinstance(ranks, MPIRanks):
        found["exchanges_s"] = exchanges(ranks)
        values = np.ones(4_000_000, np.float32)
        added = values.copy()
        seconds = timed(ranks, lambda: ranks._mpi.SUM.Reduce_local(values, added), 5, time.process_time)
        found["added_per_s"] = values.nbytes / seconds
        found["rounded_per_s"] = values.nbytes / timed(ranks, partial(rounding, values), 3, time.process_time)
        found["sums_s"] = {}
        for count in counts:
            found["sums_s"][count] = timed(ranks, partial(ranks.add_up, np.zeros(count + 2, np.float32)), 5)
    steps = {count: step_s(ranks, photo_s, batch, count, sys.argv[4:]) for count in counts}
    found["steps_s"] = {count: step for count, (step, _) in steps.items()}
    found["rest_s"] = {count: rest for count, (_, rest) in steps.items()}
    if ranks.is_first:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
