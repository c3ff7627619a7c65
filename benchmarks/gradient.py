"""The gradient of all weights on one batch of photos, in float32 and in bf16, and how alike gradients are.

    python -m benchmarks.gradient config.json PREFIX [KEY=VALUE ...]

The config's training photos are the batch. Writes PREFIX-fp32.npz and PREFIX-bf16.npz, an array for each
weight; the latter by oneDNN whether the CPU has bf16 or not, which it emulates there.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[np.float32]]


def cosines(ours: Arrays, theirs: Arrays) -> dict[str, float | str]:
    """Of the angle between two gradients: as a whole, and for the one of the weights where it is least."""
    products = {
        name: (np.vdot(one, two), np.vdot(one, one), np.vdot(two, two))
        for name in ours
        for one, two in [(ours[name].astype(np.float64), theirs[name].astype(np.float64))]
    }
    each = {name: _cosine(*found) for name, found in products.items()}
    worst = min(each, key=each.__getitem__)
    whole = _cosine(*map(sum, zip(*products.values(), strict=True)))
    return {"whole": whole, "worst": each[worst], "layer": worst}


def _cosine(product: float, first: float, second: float) -> float:
    return float(product / np.sqrt(first * second))


def main() -> None:
    # Here, since a program that compares gradients needs none of it.
    from birdsonnx.config import reading as config
    from birdsonnx.onednn.descriptors import BF16
    from birdsonnx.reporting.console import Console
    from birdsonnx.reporting.training_log import TrainingLog
    from birdsonnx.runtime.phases import Phases
    from birdsonnx.runtime.ranks import Ranks
    from birdsonnx.training import plan as plans
    from birdsonnx.training import precision, run
    from birdsonnx.training.learner import Learner

    settings = config.read(Path(sys.argv[1]), [*sys.argv[3:], "birdsonnx.precision=fp32"])
    log = TrainingLog(Console(speaks=False), None, 1, verbose=False, speaks=False)
    plan = plans.make(settings, Ranks(), log.say)
    photos, _ = run.datasets(settings, Ranks(), plan, log, Phases())

    def write(kind: str, learner: Learner) -> None:
        rows = list(range(len(photos)))
        total = learner.gradients.sum_over(rows, lambda some: learner.feeds(photos, some, 1, 0)).total
        np.savez(f"{sys.argv[2]}-{kind}.npz", **learner.weights.views_of(total[:-1] / np.float32(len(rows))))

    write("fp32", run._learner(plan))
    trained = precision.by_onednn(
        plan.network,
        lambda network: network.divide(plan.part.boundary),
        plan.loss,
        BF16,
        [len(photos)],
        plan.threads,
    )
    write("bf16", run._learner(replace(plan, trained=trained)))


if __name__ == "__main__":
    main()
