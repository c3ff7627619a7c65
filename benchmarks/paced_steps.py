"""Steps of the training loop whose forward and backward passes are a sleep of known length.

    mpirun -np 2 python -m benchmarks.paced_steps PHOTO_MS BATCH WEIGHTS[,WEIGHTS …] [KEY=VALUE …]

All else is the product's own: the share of the batch, the sum over all ranks, the norm, Adam. So only that is
measured, on any number of cores. Before that, the link: neighbours (0 and 1, 2 and 3, …) send each other
messages of several sizes, all pairs at the same time, and wait as the product does; one after another, and
after pauses. And the steps without their sum, on all ranks at the same time: hosts of one machine share its
memory. KEY=VALUE are of the config. Prints one JSON object: seconds, medians.
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
from birdsonnx.runtime.rounded_sums import bfloat16, round_into, sum_in_order
from birdsonnx.runtime.sums_in_parts import PART_BYTES, parts_of
from birdsonnx.training import loop, optimizers
from birdsonnx.training.epochs import NOT_BEGUN, Batch
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.kernels import Feeds, Run
from birdsonnx.training.parameters import Flat, FlatWeights

WARM, STEPS = 2, 8
SIZES = (8, 1_000, 16_000, 64_000, 250_000, 1_000_000, 8_000_000)
"""Bytes of messages; of a part of a sum two hosts exchange halves, and that is the most."""
PAUSE_S = 0.3
"""About as long as a step rests between two sums."""
MANY = 16_000_000
"""Numbers, as many as are trained: they are in no cache when a step comes to its sum."""


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
    ranks: Ranks,
    call: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    pause_s: float = 0.0,
) -> float:
    """The median; what only computes is better measured by the CPU's clock, which no other work moves."""
    found = []
    for _ in range(rounds + 1):
        time.sleep(pause_s)
        ranks.wait_for_all()
        started = clock()
        call()
        found.append(clock() - started)
    return statistics.median(found[1:])


def exchanges(ranks: MPIRanks, pause_s: float = 0.0) -> dict[int, float]:
    """Seconds of an exchange with the neighbour, by bytes; the longest of all ranks."""
    comm, partner = ranks._comm, ranks.rank ^ 1
    found = {}
    for size in SIZES:
        out, into = np.ones(size, np.uint8), np.ones(size, np.uint8)  # zeros would be one page

        def exchange(out: Any = out, into: Any = into) -> None:
            if partner < ranks.size:
                receiving, sending = comm.Irecv(into, partner), comm.Isend(out, partner)
                ranks._sleep_until_done(receiving)
                ranks._sleep_until_done(sending)

        found[size] = max(
            ranks.everyone(timed(ranks, exchange, 5 if size > 1e6 or pause_s else 15, pause_s=pause_s))
        )
    return found


def rounding(values: Flat) -> None:
    """What a sum of two hosts' numbers in bfloat16 computes."""
    for part in parts_of(values):
        out, into = np.zeros((2, 2, len(part) // 2), bfloat16)
        round_into(out.reshape(-1), part)
        round_into(into[0], sum_in_order(out))
        part[...] = into.reshape(-1)


def adding(ranks: MPIRanks, values: Flat, further: Flat) -> None:
    """To values what another host gave for each part."""
    for part in parts_of(values):
        ranks._mpi.SUM.Reduce_local(further[: len(part)], part)


class Meeting:
    """Ranks that only come together where they would sum."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)

    def add_up(self, _values: Flat) -> None:
        self._ranks.wait_for_all()

    add_up_rounded = add_up


def main() -> None:
    photo_s, batch = float(sys.argv[1]) / 1e3, int(sys.argv[2])
    counts = [int(float(each)) for each in sys.argv[3].split(",")]
    ranks = joining.join()
    found: dict[str, Any] = {"ranks": ranks.size}
    if isinstance(ranks, MPIRanks):
        found["exchanges_s"] = exchanges(ranks)
        found["rested_s"] = exchanges(ranks, PAUSE_S)
        values, further = np.ones(MANY, np.float32), np.ones(PART_BYTES // 4, np.float32)
        seconds = timed(ranks, partial(adding, ranks, values, further), 5, time.process_time)
        found["added_per_s"] = values.nbytes / seconds
        found["rounded_per_s"] = values.nbytes / timed(ranks, partial(rounding, values), 5, time.process_time)
    meeting = cast(Ranks, Meeting(ranks))
    found["rest_s"] = {count: step_s(meeting, photo_s, batch, count, sys.argv[4:])[1] for count in counts}
    found["steps_s"] = {count: step_s(ranks, photo_s, batch, count, sys.argv[4:])[0] for count in counts}
    if ranks.is_first:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
