"""What `birdsonnx train` does with a config, with a clock: the side of finetune.py that is measured.

    python -m benchmarks.timed_training config.json [KEY=VALUE ...]

Alone or under mpirun, where CPU time is that of all ranks and the peak that of the largest. Prints one JSON
object; `precision` is the one that the summary names, with the reason where it is not what the config asks
for.
"""

import json
import sys
from pathlib import Path

from benchmarks.steps import Steps
from birdsonnx.config import reading as config
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.training_log import TrainingLog
from birdsonnx.runtime import ranks
from birdsonnx.training import run
from birdsonnx.training.audience import Facts
from birdsonnx.training.epochs import Batch


class Clock(TrainingLog):
    """Keeps for itself what the log would write."""

    def __init__(self, epochs: int) -> None:
        super().__init__(Console(speaks=False), None, epochs, verbose=False, speaks=False)
        self.steps = Steps()
        self.losses: list[float] = []
        self.lines: list[str] = []
        self.precision = ""
        self.tested = 0
        self.say = self.lines.append

    def begin(self, facts: Facts) -> str | None:
        self.precision = facts.precision or "fp32"
        self.tested = 0 if facts.test is None else len(facts.test.photos)
        return super().begin(facts)

    def on_batch(self, batch: Batch) -> None:
        self.losses.append(batch.loss)
        self.steps.note()


def main() -> None:
    joined = ranks.join()
    settings = config.read(Path(sys.argv[1]), sys.argv[2:])
    clock = Clock(settings.num_epochs)
    outcome = run.train(settings, joined, clock)
    everyone = joined.everyone(clock.steps.figures())
    if not joined.is_first:
        return
    summed = [sum(each) for each in zip(*(figures["cpu_s"] for figures in everyone), strict=True)]
    found = {
        **everyone[0],
        "cpu_s": summed,
        "peak_gb": max(figures["peak_gb"] for figures in everyone),
        "losses": clock.losses,
        "precision": clock.precision,
        "engine": next((line for line in clock.lines if line.startswith("features by")), ""),
        "accuracies": [epoch.test_accuracy for epoch in outcome.epochs],
        "tested": clock.tested,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
