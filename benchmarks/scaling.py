"""How speed grows with ranks, each with one thread on a core of its own: `make bench-scaling`.

    python -m benchmarks.scaling [--data DATA --model MODEL.onnx] [--quick] [--rounds 5]
                                 [--runs predict head conv5 all] [--json FILE]

Every round runs, interleaved: one rank on one core; as many independent runs as cores, one on each, which is
what the machine gives (memory and clock are shared); as many ranks as cores; and twice as many ranks, two to
a core. Efficiency is the speed of the ranks over that of one times their number; with two ranks to a core,
over that of one rank to a core, since there are no more cores: 1 would be no loss. By CPU time it is the CPU
seconds of one rank's run over those of all ranks together, starting included: little of waiting shows in it,
but much less of other work on the machine. "Ranks at work" is the share of their time in which they do what
one rank alone would do too; the rest is start, waiting, exchange and files. Medians of each round's own
ratios, as Markdown.

Measured are the parts of a run by what `--json` says of it: features of photos that no cache has; predict;
the head's epochs on them; epochs of `conv5_*` and the head; full fine-tuning. DATA has class folders under
train/; MODEL is a ResNet50 as `birdsonnx export` makes it. Without them the program makes both, with random
weights.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.finetune import MPIRUN, PYTHON, ROOT, link_photos

CORES = sorted(os.sched_getaffinity(0))
BATCH = 32
ALONE, APART, TOGETHER, CROWDED = "one rank", "runs apart", "ranks", "two ranks to a core"
RUNS: dict[str, tuple[str, ...]] = {
    "head": ("num_epochs={head}", 'birdsonnx.trainable=["dense"]'),
    "conv5": ("num_epochs=2", 'birdsonnx.trainable=["conv5_*", "dense"]'),
    "all": ("num_epochs=1", 'birdsonnx.trainable=["*"]', "data.input_path=few"),
}
"""Trainings, by what is trained."""
PARTS = ("predict", *RUNS)
WORK = {"predict": ("decode", "network"), "features": ("decode", "features")}
"""Phases in which a rank does what one rank alone would do; of the other rows `STEPS`."""
STEPS = ("load", "step", "optimizer", "evaluation")

Figures = dict[str, Any]


def launched(words: Sequence[str], cores: Sequence[int], cwd: Path) -> Figures:
    """Run a verb with --json, a rank on each of these cores; what it says, with its wall and CPU seconds."""
    command: list[str] = []
    for core in cores:
        rank = ["taskset", "-c", str(core), PYTHON, "-m", "birdsonnx", *words, "--json"]
        command += [*([":"] if command else []), *(["-np", "1"] if len(cores) > 1 else []), *rank]
    if len(cores) > 1:
        command = [MPIRUN, *command]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if status:
            raise SystemExit(f"{' '.join(command)}: {errors.read().strip()[-500:]}")
        found: Figures = json.loads(output.read())
    return {**found, "wall_s": time.perf_counter() - started, "cpu_s": usage.ru_utime + usage.ru_stime}


class Folder:
    """Where a run has its config, photos and cache."""

    def __init__(self, place: Path, data: Path, model: Path, counts: dict[str, int]) -> None:
        self.place, self.counts = place, counts
        link_photos(data / "train", place / "train", counts["features"])
        link_photos(data / "train", place / "few", counts["all"])
        network = {
            "outfile": "out.txt",
            "checkpoints": {"load": str(model)},
            "data": {"input_path": "train", "batch_size": BATCH, "transforms": [{"resize": [224, 224]}]},
            "optimizer": {"type": "Adam", "learning_rate": 0.0001},
            "birdsonnx": {"cache": "cache"},
        }
        (place / "config.json").write_text(json.dumps({"neural_network": network}))
        self.model = str(model)

    def train(self, what: str, cores: Sequence[int]) -> Figures:
        """Without features of an earlier training."""
        for path in (self.place / "cache").glob("features-*"):
            path.unlink()
        settings = [each.format(**self.counts) for each in RUNS[what]]
        words = [word for each in settings for word in ("--set", each)]
        return launched(["train", "config.json", "--overwrite", *words], cores, self.place)

    def predict(self, cores: Sequence[int]) -> Figures:
        shutil.rmtree(self.place / "predictions", ignore_errors=True)
        return launched(["predict", "train", "--model", self.model], cores, self.place)

    def measure(self, what: str, cores: Sequence[int]) -> dict[str, Figures]:
        """Seconds of the rows that a run gives, CPU seconds of the whole run, and each rank's phases."""
        run = self.predict(cores) if what == "predict" else self.train(what, cores)
        took = {"cpu_s": run["cpu_s"], "phases": run["phases"]}
        if what == "predict":
            return {what: {"seconds": run["seconds"], **took}}
        found = {what: {"seconds": run["seconds"]["epochs"], **took}}
        if what == "head":
            found["features"] = {"seconds": run["seconds"]["features"], **took}
        return found


def one_round(folders: Sequence[Folder], runs: Sequence[str]) -> dict[str, dict[str, Figures]]:
    """Every setup once, run by run."""
    found: dict[str, dict[str, Figures]] = {name: {} for name in (ALONE, APART, TOGETHER, CROWDED)}
    for what in runs:
        found[ALONE] |= folders[0].measure(what, CORES[:1])
        with ThreadPoolExecutor(len(CORES)) as pool:
            apart = list(pool.map(lambda folder, core: folder.measure(what, [core]), folders, CORES))  # noqa: B023
        found[TOGETHER] |= folders[0].measure(what, CORES)
        found[CROWDED] |= folders[0].measure(what, [*CORES, *CORES])
        for row in apart[0]:
            seconds = max(each[row]["seconds"] for each in apart)
            found[APART][row] = {"seconds": seconds, "cpu_s": apart[0][row]["cpu_s"]}
    return found


def ratios(each: dict[str, dict[str, Figures]], row: str, cores: int) -> dict[str, float]:
    """Of one round: efficiencies by name. All runs do the same work, but for the runs apart: each does it."""
    alone, apart, together, crowded = (each[name][row] for name in (ALONE, APART, TOGETHER, CROWDED))
    return {
        "ranks": alone["seconds"] / together["seconds"] / cores,
        "machine": alone["seconds"] / apart["seconds"],
        "crowded": together["seconds"] / crowded["seconds"],
        "busy": busy(together, WORK.get(row, STEPS)),
        "cpu": alone["cpu_s"] / together["cpu_s"],
    }


def busy(run: Figures, work: Sequence[str]) -> float:
    """The share of the ranks' time that went into these phases."""
    worked = sum(seconds for rank in run["phases"] for name, seconds in rank.items() if name in work)
    return float(worked / len(run["phases"]) / run["seconds"])


def report(rounds: Sequence[dict[str, dict[str, Figures]]], counts: dict[str, int], cores: int) -> str:
    """The table, and the phases of the last round."""
    lines = [
        f"| part | photos/s, 1 rank | {cores} ranks | efficiency | what the machine gives | of that "
        f"| ranks at work | by CPU time of the run | {2 * cores} ranks on {cores} cores |",
        "|---" * 9 + "|",
    ]
    rows = list(rounds[0][ALONE])
    for row in rows:
        found = [ratios(each, row, cores) for each in rounds]
        mid = {name: statistics.median(each[name] for each in found) for name in found[0]}
        of_that = statistics.median(each["ranks"] / each["machine"] for each in found)
        spread = f"{min(each['ranks'] for each in found):.2f}-{max(each['ranks'] for each in found):.2f}"
        speeds = [
            done(row, counts) / statistics.median(each[setup][row]["seconds"] for each in rounds)
            for setup in (ALONE, TOGETHER)
        ]
        lines.append(
            f"| {row} | {speeds[0]:.1f} | {speeds[1]:.1f} | {mid['ranks']:.2f} ({spread}) "
            f"| {mid['machine']:.2f} | {of_that:.2f} | {mid['busy']:.3f} | {mid['cpu']:.2f} "
            f"| {mid['crowded']:.2f} |"
        )
    for row in rows:
        lines.append(f"\n{row}, seconds of each rank:")
        for setup in (ALONE, TOGETHER):
            for rank, phases in enumerate(rounds[-1][setup][row]["phases"]):
                told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
                lines.append(f"- {setup}, rank {rank}: {told}")
    return "\n".join(lines)


def done(row: str, counts: dict[str, int]) -> int:
    """How many photos, or rows of features, a part works through."""
    epochs = {"head": counts["head"], "conv5": 2}
    return counts["all"] if row == "all" else counts["features"] * epochs.get(row, 1)


def works(rounds: Sequence[dict[str, dict[str, Figures]]], counts: dict[str, int]) -> list[Figures]:
    """`cost_model.Work` of one rank on one core: medians of the rounds."""
    from benchmarks.link_check import WEIGHTS

    found = []
    for row in filter(rounds[0][ALONE].__contains__, RUNS):
        phases = [each[ALONE][row]["phases"][0] for each in rounds]
        photos = done(row, counts)
        step_s = statistics.median(each["step"] + each["load"] for each in phases)
        rest_s = statistics.median(each["optimizer"] for each in phases)
        per = {"photo_s": step_s / photos, "rest_s": rest_s * BATCH / photos}
        found.append({"name": row, "weights": WEIGHTS[row], **per})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="class folders under train/")
    parser.add_argument("--model", type=Path, help="a ResNet50")
    parser.add_argument("--quick", action="store_true", help="a third of the photos")
    parser.add_argument("--photos", type=int, default=576, help="a third of them for full fine-tuning")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", nargs="+", choices=PARTS, default=PARTS, help="only these")
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()
    photos = options.photos // 3 if options.quick else options.photos
    counts = {"features": photos, "all": photos // 3, "head": 100}
    with tempfile.TemporaryDirectory() as where:
        data, model = options.data, options.model
        if data is None or model is None:
            from birdsonnx.demo import make_photos

            data, model = Path(where) / "made", Path(where) / "made.onnx"
            make_photos(data)
            words = [PYTHON, "-m", "birdsonnx", "export", "--weights", "none", "-o", str(model)]
            subprocess.run([*words, "--labels", str(data / "train")], cwd=ROOT, check=True, stdout=sys.stderr)
        places = [Path(where) / f"core{number}" for number in range(len(CORES))]
        folders = [Folder(place, data.resolve(), model.resolve(), counts) for place in places]
        rounds = []
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            rounds.append(one_round(folders, options.runs))
    if options.json is not None:
        written = {"works": works(rounds, counts), "cores": len(CORES), "counts": counts, "rounds": rounds}
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    print(report(rounds, counts, len(CORES)))


if __name__ == "__main__":
    main()
