"""How close the road comes to the runtime itself, on this machine: `make bench-road`.

Rounds of, in turn: one bare forward pass over train + valid; a cold training alone (all threads); a cold
training on as many single-threaded ranks as there are cores; a training on cached features; a prediction of
the training photos, listed twice where there are fewer than 2,000. Medians and ratios go to stdout as
Markdown, all figures with the environment to `--json FILE`.

    python benchmarks/road.py --data DATA --model MODEL.onnx [--rounds 3]

DATA holds class folders under train/ and valid/. Without --data and --model the program makes pictures and a
ResNet50 with random weights: the times are the same, the accuracy means nothing.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
MPIRUN = str(Path(sys.executable).parent / "mpirun")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(
    *words: str, ranks: int = 1, cwd: Path, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run a verb with --json; its result and the wall time of the whole process."""
    launcher = [MPIRUN, "-np", str(ranks)] if ranks > 1 else []
    started = time.perf_counter()
    done = subprocess.run(
        [*launcher, PYTHON, "-m", "birdsonnx", *words, "--json"],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {**json.loads(done.stdout), "wall_s": time.perf_counter() - started}


def config(model: Path, data: Path) -> dict[str, Any]:
    """The tutorial's training."""
    return {
        "neural_network": {
            "num_epochs": 6,
            "checkpoints": {"load": str(model), "save": "saved/", "interval": 6},
            "data": {
                "input_path": str(data / "train"),
                "test_input_path": str(data / "valid"),
                "batch_size": 64,
                "test_batch_size": 128,
                "transforms": [{"resize": [224, 224]}],
            },
            "optimizer": {
                "type": "Adam",
                "learning_rate": 0.001,
                "lr_scheduler": {"type": "Exponential", "gamma": 0.5},
            },
            "birdsonnx": {"cache": "cache/"},
        }
    }


def same_weights(one: Path, other: Path) -> bool:
    """Whether two models hold the same bits."""
    import onnx

    tensors = [
        {tensor.name: tensor.raw_data for tensor in onnx.load(path).graph.initializer}
        for path in (one, other)
    ]
    return tensors[0] == tensors[1]


def one_round(work: Path, model: Path, photos: int, inputs: list[str], named: int) -> dict[str, float]:
    """Every measurement once; seconds."""

    def train(ranks: int = 1) -> dict[str, Any]:
        return command("train", "config.json", ranks=ranks, cwd=work)

    def bare(count: int) -> float:
        text = subprocess.run(
            [PYTHON, str(HERE / "bare.py"), str(model), str(count)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return float(text.stdout)

    figures = {"bare": bare(photos)}
    shutil.rmtree(work / "cache", ignore_errors=True)
    cold = train()
    figures["cold"] = cold["wall_s"]
    shutil.copy(work / "saved/model_checkpoint_6.onnx", work / "cold.onnx")
    cached = train()
    figures["cached_after_startup"] = cached["seconds"]["total"] - cached["seconds"]["startup"]
    figures["same_bits"] = float(same_weights(work / "cold.onnx", work / "saved/model_checkpoint_6.onnx"))
    shutil.rmtree(work / "cache")
    figures["cold_ranks"] = train(CORES)["wall_s"]
    figures["accuracy"] = cold["epochs"][-1]["test_accuracy"]

    predicted = command("predict", *inputs, "--model", "cold.onnx", cwd=work)
    figures["predict_rate"] = predicted["photos"] / predicted["seconds"]
    figures["bare_rate"] = named / bare(named)
    return figures


def help_ratio(rounds: int = 9) -> float:
    """`birdsonnx --help` against `python -c 'import typer'`, interleaved, medians."""
    commands = ([PYTHON, "-m", "birdsonnx", "--help"], [PYTHON, "-c", "import typer"])
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for words, found in zip(commands, times, strict=True):
            started = time.perf_counter()
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
            found.append(time.perf_counter() - started)
    return statistics.median(times[0]) / statistics.median(times[1])


def prepare(arguments: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """Model and data, made here where none are given."""
    data, model = arguments.data, arguments.model
    if data is None:
        from birdsonnx.demo import make_photos

        make_photos(work / "data")
        data = work / "data"
    data = Path(data).resolve()
    if model is None:
        model = work / "model.onnx"
        print("exporting a ResNet50 …", file=sys.stderr)
        weights = str(arguments.weights.resolve()) if arguments.weights else "none"
        command("export", "--weights", weights, "--labels", str(data / "train"), "-o", str(model), cwd=work)
    return Path(model).resolve(), data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with train/ and valid/")
    parser.add_argument("--model", type=Path, help="a birdsonnx .onnx for its classes")
    parser.add_argument("--weights", type=Path, help="backbone weights to export where --model is not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, data = prepare(arguments, work)
        (work / "config.json").write_text(json.dumps(config(model, data)))
        photos = sum(1 for part in ("train", "valid") for path in (data / part).glob("*/*"))
        inputs = [str(data / "train")]
        named = sum(1 for _ in (data / "train").glob("*/*"))
        if named < 2000:  # the same photos again, as links
            again = work / "photos"
            for copy in range(-(-2000 // named)):
                for path in (data / "train").glob("*/*"):
                    link = again / str(copy) / path.parent.name / path.name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path)
            inputs, named = [str(again)], named * -(-2000 // named)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(one_round(work, model, photos, inputs, named))
            print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr)
    report(rounds, photos, named, help_ratio(), arguments.json)


def report(
    rounds: list[dict[str, float]], photos: int, named: int, help_times: float, path: Path | None
) -> None:
    """Medians and ratios; a ratio is the median of each round's own."""

    def median(name: str) -> float:
        return statistics.median(figures[name] for figures in rounds)

    def ratio(one: str, other: str) -> float:
        return statistics.median(figures[one] / figures[other] for figures in rounds)

    print(f"{CORES} cores, {photos} photos of train + valid, {named} to predict, {len(rounds)} rounds\n")
    print("| what | median | ratio | bar |\n|---|---|---|---|")
    rows = [
        ("bare forward pass, default session, batch 8", f"{median('bare'):.1f} s", "1", ""),
        (
            "cold training, 6 epochs, whole process",
            f"{median('cold'):.1f} s",
            f"{ratio('cold', 'bare'):.3f}",
            "≤ 1.25",
        ),
        (
            f"the same on {CORES} ranks x 1 thread, against 1 rank x {CORES} threads",
            f"{median('cold_ranks'):.1f} s",
            f"{ratio('cold_ranks', 'cold'):.3f}",
            "≤ 1.15",
        ),
        (
            "training on cached features, after start-up",
            f"{median('cached_after_startup'):.2f} s",
            "",
            "< 10 s",
        ),
        ("accuracy on valid/ after training", f"{median('accuracy'):.4f}", "", ""),
        ("same bits as the cold training", "yes" if median("same_bits") == 1 else "NO", "", "yes"),
        (
            f"predict {named} photos, files to closed HDF5",
            f"{median('predict_rate'):.1f} images/s",
            f"{ratio('predict_rate', 'bare_rate'):.3f}",
            "≥ 0.95",
        ),
        ("`birdsonnx --help` against `import typer`", "", f"{help_times:.2f}", "≤ 2"),
    ]
    for row in rows:
        print(f"| {' | '.join(row)} |")
    if path is not None:
        from birdsonnx.doctor import examine

        content = {"rounds": rounds, "help_ratio": help_times, "environment": examine()}
        path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
