"""Training against PyTorch and Keras on the same cores, photos and weights: `make bench-train`.

Interleaved rounds of, each in a process of its own: steps of full fine-tuning (birdsonnx alone, birdsonnx
on as many single-threaded ranks as cores, PyTorch in float32 and bf16, Keras `fit`); `conv5_*` + `dense`
over 6 epochs from files to checkpoint (birdsonnx, also with features in int8, PyTorch with its frozen part
under no_grad); the head over 6 epochs (birdsonnx, the same two ways, Keras `fit` with a frozen backbone).
Peers that are not installed are reported as
missing. Medians, and the median of each round's own ratio, as Markdown on stdout; everything with the
environment to --json.

    python benchmarks/finetune.py --data DATA --weights resnet50_imagenet_notop.h5 [--rounds 5]

DATA holds class folders under train/ and valid/; `--photos` of train/ and a fifth as many of valid/ are used.
Without --data and --weights the program makes pictures and random weights: the times mean the same.
"""

import argparse
import importlib.util
import json
import os
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
CORES = len(os.sched_getaffinity(0))
EPOCHS = 6
STEPS, BATCH = 5, 32
"""Of full fine-tuning; the first step is not timed."""


def measured(*words: str, cwd: Path, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a process that prints JSON; its content, wall time and peak memory (of its largest process)."""
    started = time.perf_counter()
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(words)} failed with status {status}")
    return {**json.loads(text.splitlines()[-1]), "wall_s": wall_s, "peak_gb": usage.ru_maxrss / 1e6}


def birdsonnx(work: Path, *settings: str, ranks: int = 1) -> dict[str, Any]:
    """Train with the config of `work` and some of its keys changed; also the rate behind the first step."""
    (work / "out_train.txt").unlink(missing_ok=True)
    launcher = [MPIRUN, "-np", str(ranks)] if ranks > 1 else []
    options = [word for setting in settings for word in ("--set", setting)]
    result = measured(
        *launcher, PYTHON, "-m", "birdsonnx", "train", "config.json", *options, "--json", cwd=work,
        environment={"OMP_NUM_THREADS": "1"} if ranks > 1 else None,
    )  # fmt: skip
    text = (work / "out_train.txt").read_text()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    times, losses = [float(line[0]) for line in lines], [float(line[3]) for line in lines]
    if len(times) > 1:
        result["images_per_second"] = (len(times) - 1) * BATCH / (times[-1] - times[0])
    return {**result, "losses": losses}


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


FULL = (
    'birdsonnx.trainable=["*"]',
    "num_epochs=1",
    f"data.batch_size={BATCH}",
    "data.preload=true",
    "data.input_path=steps",
    "data.test_input_path=null",
    "checkpoints.save=null",
)


INT8 = "birdsonnx.feature_precision=int8"


def one_round(work: Path, weights: Path | None, has: dict[str, bool]) -> dict[str, dict[str, Any]]:
    """Every measurement once."""
    torch = [PYTHON, str(HERE / "torch_train.py"), "head.onnx"]
    keras = [PYTHON, str(HERE / "keras_train.py")]
    backbone = ["--weights", str(weights)] if weights else []
    steps = ["--batch", str(BATCH)]
    epochs = ["--batch", "64", "--epochs", str(EPOCHS), "--test"]
    found = {"full birdsonnx": birdsonnx(work, *FULL)}
    if has["torch"]:
        found["full torch"] = measured(*torch, "full", *steps, cwd=work)
    found["full ranks"] = birdsonnx(work, *FULL, ranks=CORES)
    if has["torch"]:
        found["full torch bf16"] = measured(*torch, "full", *steps, "--bf16", cwd=work)
    if has["keras"] and has["keras full"]:
        found["full keras"] = measured(*keras, "full", *steps, *backbone, "--train", "all", cwd=work)

    def cold(*settings: str) -> dict[str, Any]:
        for path in (work / "cache").glob("*-*.*"):
            path.unlink()
        return birdsonnx(work, *settings)

    found["conv5 birdsonnx"] = cold('birdsonnx.trainable=["conv5_*", "dense"]')
    found["conv5 int8"] = cold('birdsonnx.trainable=["conv5_*", "dense"]', INT8)
    if has["torch"]:
        found["conv5 torch"] = measured(*torch, "data", *epochs, "--train", "conv5", cwd=work)
    found["head birdsonnx"] = cold("checkpoints.load=fresh.onnx", "optimizer.learning_rate=0.001")
    found["head int8"] = cold("checkpoints.load=fresh.onnx", "optimizer.learning_rate=0.001", INT8)
    if has["keras"]:
        found["head keras"] = measured(*keras, "data", *epochs, *backbone, cwd=work)
    return found


def link_photos(source: Path, target: Path, most: int) -> None:
    """Links to so many photos, the same number of each class."""
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in folders:
        (target / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[: max(1, most // len(folders))]:
            (target / folder.name / photo.name).symlink_to(photo)


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
    link_photos(data / "train", work / "full/train", STEPS * BATCH)
    (work / "steps").symlink_to(work / "full/train")
    (work / "config.json").write_text(json.dumps(config(work)))
    print("exporting a ResNet50 and training its head …", file=sys.stderr)
    weights = str(arguments.weights.resolve()) if arguments.weights else "none"
    measured(
        PYTHON, "-m", "birdsonnx", "export", "--weights", weights, "--labels", str(data / "train"),
        "-o", "fresh.onnx", "--json", cwd=work,
    )  # fmt: skip
    birdsonnx(work, "checkpoints.load=fresh.onnx", "optimizer.learning_rate=0.001")
    (work / f"saved/model_checkpoint_{EPOCHS}.onnx").rename(work / "head.onnx")


def report(rounds: list[dict[str, dict[str, Any]]]) -> None:
    """The table."""

    def median(name: str, figure: str) -> float | None:
        values = [found[name][figure] for found in rounds if name in found]
        return statistics.median(values) if values else None

    def row(what: str, name: str, figure: str, ours: str = "", bar: str = "") -> None:
        value = median(name, figure)
        if value is None:
            print(f"| {what} | missing | | | |")
            return
        ratio = ""
        if ours:
            upside_down = figure == "wall_s"
            pairs = [(found[ours][figure], found[name][figure]) for found in rounds]
            ratio = f"{statistics.median(b / a if upside_down else a / b for a, b in pairs):.2f}"
        unit = "s" if figure == "wall_s" else "images/s"
        print(f"| {what} | {value:.1f} {unit} | {median(name, 'peak_gb'):.1f} GB | {ratio} | {bar} |")

    print(
        "| what | median | peak memory of a process | birdsonnx is faster by | bar |\n|---|---|---|---|---|"
    )
    row(f"full fine-tuning, batch {BATCH}: birdsonnx", "full birdsonnx", "images_per_second")
    row("… PyTorch float32", "full torch", "images_per_second", "full birdsonnx", "≥ 1.15")
    row("… PyTorch bf16 autocast", "full torch bf16", "images_per_second", "full birdsonnx")
    row("… Keras `fit`", "full keras", "images_per_second", "full birdsonnx")
    row(
        f"… birdsonnx, {CORES} ranks x 1 thread",
        "full ranks",
        "images_per_second",
        "full birdsonnx",
        "≤ 1.05",
    )
    row("conv5 + head, 6 epochs, whole process: birdsonnx", "conv5 birdsonnx", "wall_s")
    row("… PyTorch float32", "conv5 torch", "wall_s", "conv5 birdsonnx", "≥ 2.5")
    row("… birdsonnx, features in int8", "conv5 int8", "wall_s", "conv5 birdsonnx")
    row("head, 6 epochs, whole process: birdsonnx", "head birdsonnx", "wall_s")
    row("… Keras `fit`", "head keras", "wall_s", "head birdsonnx", "≥ 10")
    row("… birdsonnx, features in int8", "head int8", "wall_s", "head birdsonnx")
    if "conv5 torch" in rounds[0]:
        pairs = zip(rounds[0]["conv5 birdsonnx"]["losses"], rounds[0]["conv5 torch"]["losses"], strict=True)
        first = [abs(ours - theirs) / theirs for ours, theirs in list(pairs)[:3]]
        print(f"\nLosses of the first three conv5 steps differ from PyTorch's by {max(first):.1e} at most.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with train/ and valid/")
    parser.add_argument("--weights", type=Path, help="backbone weights to export")
    parser.add_argument("--photos", type=int, default=480, help="training photos of the 6-epoch runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="without Keras' full fine-tuning")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    has = {name: importlib.util.find_spec(name) is not None for name in ("torch", "keras")}
    has["keras full"] = not arguments.quick
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(arguments, work)
        weights = arguments.weights.resolve() if arguments.weights else None
        for number in range(arguments.rounds):
            rounds.append(one_round(work, weights, has))
            figures = {
                name: found.get("images_per_second") if name.startswith("full") else found["wall_s"]
                for name, found in rounds[-1].items()
            }
            print(f"round {number + 1}: {figures}", file=sys.stderr)
            if arguments.json is not None:
                from birdsonnx.doctor import examine

                content = {"rounds": rounds, "environment": examine()}
                arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{CORES} cores, {arguments.photos} photos, {len(rounds)} interleaved rounds\n")
    report(rounds)


if __name__ == "__main__":
    main()
