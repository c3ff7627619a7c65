"""Training against PyTorch and Keras on the same cores, photos and weights: `make bench-train`.

Interleaved rounds of, each in a process of its own: steps of full fine-tuning (birdsonnx in float32 and bf16,
alone and on as many single-threaded ranks as cores; PyTorch in float32, in bf16 autocast and compiled; Keras
`fit`); `conv5_*` + `dense` over 6 epochs from files to checkpoint (birdsonnx in both precisions, with
features in float32, bf16 and int8; PyTorch with its frozen part under no_grad); the head over 6 epochs
(birdsonnx, Keras `fit` with a frozen backbone). What is not installed or cannot run here is reported as
missing, with the reason. Medians, and the median of each round's own ratio, as Markdown on stdout; everything
with the environment to --json.

    python -m benchmarks.finetune --data DATA --weights resnet50_imagenet_notop.h5 [--rounds 5]

DATA holds class folders under train/, valid/ and, for --accuracy, test/; `--photos` of train/ and a fifth as
many of valid/ are used. Without --data and --weights the program makes pictures and random weights: the times
mean the same.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import finetune_report as report
from benchmarks.steps import speeds

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
MPIRUN = str(Path(sys.executable).parent / "mpirun")
CORES = len(os.sched_getaffinity(0))
EPOCHS = 6
BATCH = 32
"""Of full fine-tuning."""
WARM = 2
"""Steps of full fine-tuning that are not timed; torch.compile compiles in both."""

Figures = dict[str, Any]


class MissingError(Exception):
    """Something that cannot be measured here, and why."""


def measured(*words: str, cwd: Path, environment: dict[str, str] | None = None) -> Figures:
    """Run a process that prints JSON; its content, with its wall and CPU time and, unless it says so itself,
    its peak memory. Raises MissingError where it fails."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # which nothing else waits for now
        wall_s = time.perf_counter() - started
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line.strip()]
    if status:
        raise MissingError(said[-1].strip()[:300] if said else f"status {status}")
    found: Figures = json.loads(text.splitlines()[-1]) if text.strip() else {}
    if "missing" in found:
        raise MissingError(found["missing"])
    took = {"wall_s": wall_s, "process_cpu_s": usage.ru_utime + usage.ru_stime}
    return {"peak_gb": usage.ru_maxrss / 1e6, **found, **took}


def birdsonnx(work: Path, *settings: str, ranks: int = 1) -> Figures:
    """Train with the config of `work` and some of its keys changed."""
    launcher = [MPIRUN, "-np", str(ranks)] if ranks > 1 else []
    return measured(
        *launcher, PYTHON, "-m", "benchmarks.timed_training", "config.json", *settings, cwd=work,
        environment={"OMP_NUM_THREADS": "1"} if ranks > 1 else None,
    )  # fmt: skip


def config(work: Path) -> dict[str, Any]:
    """What all measurements share."""
    return {
        "neural_network": {
            "num_epochs": EPOCHS,
            "outfile": "out.txt",
            "checkpoints": {"load": "head.onnx", "save": "saved/", "interval": EPOCHS},
            "data": {
                "input_path": str(work / "data/train"),
                "test_input_path": str(work / "data/valid"),
                "batch_size": 64,
                "transforms": [{"resize": [224, 224]}],
            },
            "optimizer": {"type": "Adam", "learning_rate": 0.0001},
            "birdsonnx": {"cache": "cache/"},
        }
    }


FULL = ('birdsonnx.trainable=["*"]', f"data.batch_size={BATCH}", "data.preload=true")
STEPS = (
    *FULL,
    "num_epochs=1",
    "data.input_path=steps/train",
    "data.test_input_path=null",
    "checkpoints.save=null",
)
HEAD = ("checkpoints.load=fresh.onnx", "optimizer.learning_rate=0.001")
BY_ONNXRUNTIME = "birdsonnx.engine=onnxruntime"
PRECISIONS = {"float32": "fp32", "bf16": "bf16"}
FEATURES = {"float32": "fp32", "int8": "int8", "bf16": "bf16"}


@dataclass(frozen=True)
class Setup:
    """What rows are measured with."""

    work: Path
    weights: Path | None
    torch_python: str

    def ours(self, *settings: str, ranks: int = 1) -> Figures:
        """Steps of full fine-tuning."""
        found = birdsonnx(self.work, *STEPS, *settings, ranks=ranks)
        return found | speeds(found, BATCH, WARM)

    def cold(self, *settings: str) -> Figures:
        """A whole training, without features of an earlier one."""
        for path in (self.work / "cache").glob("*-*.*"):
            path.unlink()
        return birdsonnx(self.work, *settings)

    def torch(self, *words: str) -> Figures:
        program = (self.torch_python, "-m", "benchmarks.torch_train", "head.onnx")
        return measured(*program, *words, cwd=self.work)

    def torch_steps(self, *words: str) -> Figures:
        found = self.torch("steps", "--batch", str(BATCH), *words)
        return found | speeds(found, BATCH, WARM)

    def keras(self, *words: str) -> Figures:
        backbone = ["--weights", str(self.weights)] if self.weights else []
        return measured(PYTHON, "-m", "benchmarks.keras_train", *words, *backbone, cwd=self.work)

    def keras_steps(self) -> Figures:
        found = self.keras("steps", "--batch", str(BATCH), "--train", "all")
        return found | speeds(found, BATCH, WARM)


WHOLE = ("data", "--batch", "64", "--epochs", str(EPOCHS), "--test")


def rows(setup: Setup) -> dict[str, Callable[[], Figures]]:
    """What measures each row of the tables."""
    found: dict[str, Callable[[], Figures]] = {
        report.F32: lambda: setup.ours(BY_ONNXRUNTIME),
        report.F32_AUTO: setup.ours,
        report.TORCH: setup.torch_steps,
        report.BF16: lambda: setup.ours("birdsonnx.precision=bf16"),
        report.TORCH_BF16: lambda: setup.torch_steps("--bf16"),
        report.F32_RANKS: lambda: setup.ours(BY_ONNXRUNTIME, ranks=CORES),
        report.BF16_RANKS: lambda: setup.ours("birdsonnx.precision=bf16", ranks=CORES),
        report.COMPILED: lambda: setup.torch_steps("--bf16", "--compile"),
        report.KERAS: setup.keras_steps,
    }

    def conv5(precision: str, features: str) -> Callable[[], Figures]:
        settings = [f"birdsonnx.precision={PRECISIONS[precision]}"]
        settings += [f"birdsonnx.feature_precision={FEATURES[features]}"]
        return lambda: setup.cold('birdsonnx.trainable=["conv5_*", "dense"]', *settings)

    for precision in PRECISIONS:
        found |= {report.conv5(precision, each): conv5(precision, each) for each in FEATURES}
    found |= {
        report.CONV5_TORCH: lambda: setup.torch(*WHOLE, "--train", "conv5"),
        report.CONV5_TORCH_BF16: lambda: setup.torch(*WHOLE, "--train", "conv5", "--bf16"),
        report.HEAD_F32: lambda: setup.cold(*HEAD),
        report.HEAD_INT8: lambda: setup.cold(*HEAD, "birdsonnx.feature_precision=int8"),
        report.HEAD_KERAS: lambda: setup.keras(*WHOLE),
    }
    return found


def one_round(rows: dict[str, Callable[[], Figures]], first: int, missing: dict[str, str]) -> Figures:
    """Every row once, from the `first` on; what cannot be measured goes to `missing`, and is not tried
    again."""
    names = list(rows)
    found = {}
    for name in [*names[first:], *names[:first]]:
        if name in missing:
            continue
        print(f"  {name} …", end="", file=sys.stderr, flush=True)
        try:
            found[name] = figures = rows[name]()
        except MissingError as reason:
            missing[name] = str(reason)
            print(f" missing: {reason}", file=sys.stderr)
            continue
        if "images_per_second" in figures:
            rate, cpu_ms = figures["images_per_second"], figures["cpu_ms_per_image"]
            line = f" {rate:.1f} images/s, {cpu_ms:.0f} CPU ms per image;"
        else:
            line = ""
        print(f"{line} {figures['precision']}; {figures['wall_s']:.0f} s in all", file=sys.stderr)
    return found


def accuracy(work: Path, photos: int) -> dict[str, Figures]:
    """Full fine-tuning over 6 epochs from the trained head on so many photos, in both precisions, and how
    many photos of the test set are named rightly then."""
    found = {}
    for kind in ("fp32", "bf16"):
        settings = (
            *FULL,
            f"data.input_path={work}/accuracy/train",
            f"data.test_input_path={work}/accuracy/test",
        )
        row = birdsonnx(work, *settings, "optimizer.learning_rate=1e-5", f"birdsonnx.precision={kind}")
        print(f"  accuracy in {kind}, {photos} photos: {row['accuracies']}", file=sys.stderr)
        right = round(row["accuracies"][-1] * row["tested"])
        kept = {key: row[key] for key in ("precision", "tested", "wall_s", "accuracies", "losses", "peak_gb")}
        found[kind] = {"right": right, **kept}
    return found


def gradient(setup: Setup) -> dict[str, Figures]:
    """Cosines of gradients on one batch: of bf16 with its own side's float32, and of both sides' float32."""
    import numpy as np

    from benchmarks.gradient import cosines

    work = setup.work
    settings = (*STEPS, "data.input_path=gradient/train")
    measured(PYTHON, "-m", "benchmarks.gradient", "config.json", "ours", *settings, cwd=work)
    ours = {kind: dict(np.load(work / f"ours-{kind}.npz")) for kind in ("fp32", "bf16")}
    found: dict[str, Figures] = {"birdsonnx bf16 and float32": dict(cosines(ours["bf16"], ours["fp32"]))}
    theirs = {}
    try:
        for kind, words in {"fp32": (), "bf16": ("--bf16",)}.items():
            setup.torch("gradient", "--gradient", f"theirs-{kind}.npz", *words)
            theirs[kind] = dict(np.load(work / f"theirs-{kind}.npz"))
    except MissingError as reason:
        print(f"  gradient: PyTorch is missing: {reason}", file=sys.stderr)
        return found
    found["PyTorch bf16 autocast and float32"] = dict(cosines(theirs["bf16"], theirs["fp32"]))
    found["birdsonnx float32 and PyTorch float32"] = dict(cosines(ours["fp32"], theirs["fp32"]))
    return found


def link_photos(source: Path, target: Path, most: int | None) -> int:
    """Links to so many photos, of each class the same number or one more; None: to all. Returns how many."""
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    linked = 0
    for number, folder in enumerate(folders):
        (target / folder.name).mkdir(parents=True)
        share = None if most is None else most // len(folders) + (number < most % len(folders))
        for photo in sorted(folder.iterdir())[:share]:
            (target / folder.name / photo.name).symlink_to(photo.resolve())
            linked += 1
    return linked


def prepare(arguments: argparse.Namespace, work: Path) -> None:
    """Photos, a network with a fresh head, and one whose head is trained: what fine-tuning starts from."""
    data = arguments.data
    if data is None:
        from birdsonnx.demo import make_photos

        make_photos(work / "made")
        data = work / "made"
    data = Path(data).resolve()
    link_photos(data / "train", work / "data/train", arguments.photos)
    link_photos(data / "valid", work / "data/valid", arguments.photos // 5)
    found = link_photos(data / "train", work / "steps/train", arguments.steps * BATCH)
    if found % BATCH:
        raise SystemExit(
            f"{data / 'train'}: has classes of too few photos for {arguments.steps} equal batches"
        )
    link_photos(data / "train", work / "gradient/train", BATCH)
    (work / "config.json").write_text(json.dumps(config(work)))
    print("exporting a ResNet50 and training its head …", file=sys.stderr)
    weights = str(arguments.weights.resolve()) if arguments.weights else "none"
    measured(
        PYTHON, "-m", "birdsonnx", "export", "--weights", weights, "--labels", str(data / "train"),
        "-o", "fresh.onnx", "--json", cwd=work,
    )  # fmt: skip
    birdsonnx(work, *HEAD)
    (work / f"saved/model_checkpoint_{EPOCHS}.onnx").rename(work / "head.onnx")
    if arguments.accuracy is not None:
        arguments.accuracy = link_photos(data / "train", work / "accuracy/train", arguments.accuracy or None)
        tested = data / "test" if (data / "test").is_dir() else data / "valid"
        link_photos(tested, work / "accuracy/test", arguments.tested)


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with train/, valid/ and test/")
    parser.add_argument("--weights", type=Path, help="backbone weights to export")
    parser.add_argument("--photos", type=int, default=480, help="training photos of the 6-epoch runs")
    parser.add_argument(
        "--steps", type=int, default=WARM + 4, help="of full fine-tuning, with 2 untimed ones"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--groups", nargs="+", choices=report.GROUPS, default=list(report.GROUPS))
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="rows whose names contain one of these texts"
    )
    parser.add_argument("--quick", action="store_true", help="without Keras' full fine-tuning")
    parser.add_argument("--torch-python", default=PYTHON, metavar="PATH", help="Python that has PyTorch")
    parser.add_argument("--gradient", action="store_true", help="also compare gradients on a batch")
    parser.add_argument(
        "--accuracy", type=int, nargs="?", const=0, metavar="PHOTOS",
        help="also fine-tune all layers over 6 epochs in both precisions, on all photos or so many (slow)",
    )  # fmt: skip
    parser.add_argument("--tested", type=int, metavar="PHOTOS", help="of test/ by --accuracy; default: all")
    parser.add_argument("--json", type=Path, help="write every figure here")
    return parser.parse_args(words)


def main() -> None:
    arguments = parsed()
    from birdsonnx.doctor import examine
    from birdsonnx.runtime import isa

    results: dict[str, Any] = {
        "cores": CORES,
        "cpu": isa.cpuinfo("model name"),
        "flags": isa.extensions(),
        "photos": arguments.photos,
        "environment": examine(),
        "rounds": [],
        "missing": {},
    }

    def keep() -> None:
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        try:
            prepare(arguments, work)
        except MissingError as error:
            raise SystemExit(str(error)) from None
        weights = arguments.weights.resolve() if arguments.weights else None
        setup = Setup(work, weights, str(Path(arguments.torch_python).absolute()))
        chosen = {
            name: measure
            for name, measure in rows(setup).items()
            if name.partition(":")[0] in arguments.groups
            and (arguments.only is None or any(text in name for text in arguments.only))
            and not (arguments.quick and name == report.KERAS)
        }
        results["rows"] = list(chosen)
        if importlib.util.find_spec("keras") is None:
            results["missing"] = {name: "no keras" for name in chosen if "Keras" in name}
        for number in range(arguments.rounds):
            print(f"round {number + 1}", file=sys.stderr)
            results["rounds"].append(one_round(chosen, number * 3 % max(1, len(chosen)), results["missing"]))
            keep()
        if arguments.gradient:
            results["gradient"] = gradient(setup)
            keep()
        if arguments.accuracy is not None:
            results["accuracy"] = accuracy(work, arguments.accuracy)
            keep()
    print(report.markdown(results))


if __name__ == "__main__":
    main()
