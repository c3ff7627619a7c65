"""Inference against other systems on the same cores, photos and weights: `make bench`.

Keras `predict`, `tf.function`, PyTorch (eager and compiled, float32 and bf16 autocast), OpenVINO (f32,
bf16, NNCF int8), and the unmodified tf2onnx graph on the newest ONNX Runtime and on the wheel birdsonnx uses.
Every peer runs in a process of its own (benchmarks/peers/), first over the batch sizes and options that it
has, then with the best of them in interleaved rounds. What is not installed is reported as missing. Medians,
the median of each round's own ratio, top-1 and agreement as Markdown on stdout; everything with the
environment to --json.

    python -m benchmarks.inference --data DATA --weights resnet50_imagenet_notop.h5 [--rounds 5]

DATA holds class folders under train/, valid/ and test/. Speed and accuracy are taken on the photos of test/,
decoded once; peers that read floats get them preprocessed, outside of the timing, where birdsonnx
preprocesses in the graph. OpenVINO runs the network as tf2onnx converts it, and in rows of its own the file
that birdsonnx exported, whose graph is a faster one of equal value. Without --data and --weights the program
makes pictures and random weights: the times mean the same. --model and --int8 take ready files instead of
training a head and quantising.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.inference_report import (
    BF16,
    COMPILED_BF16,
    FILES,
    FP32,
    FP32_OV,
    INT8,
    INT8_OV,
    INT8_OV_VNNI,
    INT8_VNNI,
    NNCF,
    NNCF_VNNI,
    OPENVINO_BF16,
    markdown,
    plot,
)
from benchmarks.road import config
from birdsonnx.runtime import isa

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CALIBRATION_PHOTOS = 128
LIMIT_S = 900
"""For one process; a peer that takes longer has failed."""

Figures = dict[str, Any]


@dataclass
class Contender:
    """One row of the table: a peer with what it runs on and what may be chosen."""

    name: str
    group: str
    peer: str
    python: Path
    settings: dict[str, Any]
    choices: dict[str, list[Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    missing: str = ""
    """Why it cannot run."""

    @property
    def told(self) -> str:
        """The settings that were chosen, for people."""
        words = [f"batch {self.settings['batch']}"] if "batch" in self.settings else []
        words += [self.settings["hint"]] if "hint" in self.settings else []
        words += ["XLA"] if self.settings.get("xla") else []
        return ", ".join(words)


def run(
    python: Path | str, *words: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """A module of this project in a process of its own, with any interpreter."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [str(python), "-m", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT_S,
        check=False,
    )


def reason(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line of what a failed process said."""
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    return " ".join(lines[-1].split())[:160].replace("|", "/") if lines else f"exit {done.returncode}"


def measure(contender: Contender, files: dict[str, Path], **settings: Any) -> Figures:
    """One process of a peer; where it cannot run, why is noted in `contender` and there are no figures."""
    if contender.missing:
        return {}
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(files["work"] / "inductor"), **contender.environment}
    asked = {"photos": str(files["photos"]), "threads": CORES, **contender.settings, **settings}
    try:
        done = run(
            contender.python, f"benchmarks.peers.{contender.peer}", json.dumps(asked), environment=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        contender.missing = f"failed: {error}"[:160]
        return {}
    if done.returncode:
        contender.missing = f"failed: {reason(done)}"
        return {}
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    if "missing" in found:
        contender.missing = f"{found['missing']} is not installed"
        return {}
    return found


def choose(contender: Contender, files: dict[str, Path], seconds: float) -> list[Figures]:
    """Try every combination of its choices briefly, and settle on the fastest."""
    tried: list[Figures] = []
    for values in itertools.product(*contender.choices.values()):
        choice = dict(zip(contender.choices, values, strict=True))
        found = measure(contender, files, **choice, seconds=seconds)
        if not found:
            break
        tried.append({**choice, "images_per_second": found["images_per_second"]})
    if tried:
        best = max(tried, key=lambda entry: entry["images_per_second"])
        contender.settings |= {name: best[name] for name in contender.choices}
    return tried


def contenders(
    files: dict[str, Path], absent: dict[str, str], arguments: argparse.Namespace
) -> list[Contender]:
    """All rows, those next to each other that are compared. `files` that are not there have their reason in
    `absent`."""
    batches = {"batch": arguments.batches}
    hints = {"hint": ["THROUGHPUT", "LATENCY"], **batches}
    newest, openvino = arguments.onnxruntime_python, arguments.openvino_python

    def row(
        name: str, group: str, peer: str, model: str, python: Path = Path(PYTHON), **other: Any
    ) -> Contender:
        settings = {"model": str(files.get(model, "")), **other.pop("settings", {})}
        needed = [model, *(["weights"] if peer == "keras" else [])]
        missing = next((absent[what] for what in needed if what in absent), "")
        return Contender(
            name, group, peer, python, settings, other.pop("choices", batches), missing=missing, **other
        )

    def openvino_row(name: str, group: str, model: str, precision: str, **other: Any) -> Contender:
        return row(
            name,
            group,
            "openvino",
            model,
            openvino,
            settings={"precision": precision},
            choices=hints,
            **other,
        )

    def torch_row(name: str, group: str, **settings: Any) -> Contender:
        return row(name, group, "torch", "model", settings=settings)

    keras = {"weights": str(files.get("weights", ""))}
    # Several batches in one call, over which the overhead of `predict` is spread.
    at_once = {"call": "predict", "per_call": 64}
    by_openvino = {"engine": "openvino"}
    no_amx = {"environment": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}}
    held_to_vnni = [
        row(INT8_VNNI, "int8", "birdsonnx", "int8", settings={"amx": False}),
        row(INT8_OV_VNNI, "int8", "birdsonnx", "int8", settings=by_openvino, **no_amx),
        openvino_row(NNCF_VNNI, "int8", "nncf", "int8", **no_amx),
    ]
    rows = [
        row(FP32, "fp32", "birdsonnx", "model"),
        row(FP32_OV, "fp32", "birdsonnx", "model", settings=by_openvino),
        openvino_row("OpenVINO f32", "fp32", "plain", "f32"),
        openvino_row("OpenVINO f32 on birdsonnx' file", "fp32", "model", "f32"),
        row("TensorFlow tf.function", "fp32", "keras", "model",
            settings={**keras, "call": "tf.function"}, choices={"xla": [False, True], **batches}),
        row("Keras predict", "fp32", "keras", "model", settings={**keras, **at_once}),
        torch_row("PyTorch eager f32", "fp32", precision="f32"),
        torch_row("PyTorch compile f32", "fp32", precision="f32", compiled=True),
        row("birdsonnx' fp32 file, newest onnxruntime", "fp32", "onnxruntime", "model", newest),
        row("tf2onnx graph, newest onnxruntime", "fp32", "onnxruntime", "plain", newest),
        row("tf2onnx graph, birdsonnx' onnxruntime", "fp32", "onnxruntime", "plain"),
        row(INT8, "int8", "birdsonnx", "int8"),
        row(INT8_OV, "int8", "birdsonnx", "int8", settings=by_openvino),
        openvino_row(NNCF, "int8", "nncf", "int8"),
        openvino_row("OpenVINO NNCF int8 of birdsonnx' file", "int8", "nncf_ours", "int8"),
        *(held_to_vnni if isa.has_amx() else []),
        row("birdsonnx' int8 file, newest onnxruntime", "int8", "onnxruntime", "int8", newest),
        row(BF16, "bf16", "birdsonnx", "model", settings={**by_openvino, "bf16": True}),
        openvino_row(OPENVINO_BF16, "bf16", "plain", "bf16"),
        torch_row("PyTorch eager bf16", "bf16", precision="bf16"),
        torch_row(COMPILED_BF16, "bf16", precision="bf16", compiled=True),
    ]  # fmt: skip
    return [contender for contender in rows if any(word in contender.name for word in arguments.only)]


def birdsonnx(*words: str, cwd: Path) -> Figures:
    """A verb with --json; ends the program where it fails."""
    done = run(PYTHON, "birdsonnx", *words, "--json", cwd=cwd)
    if done.returncode:
        raise SystemExit(f"birdsonnx {' '.join(words)}: {reason(done)}")
    result: Figures = json.loads(done.stdout)
    return result


def from_files(contender: Contender, files: dict[str, Path]) -> Figures:
    """`birdsonnx predict` from JPEG files to a closed HDF5 file, as a row of ours computes."""
    out = files["work"] / "predictions"
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    settings = contender.settings
    words = ["--model", settings["model"], "--engine", settings.get("engine", "onnxruntime")]
    words += ["--precision", "bf16"] if settings.get("bf16") else []
    found = birdsonnx("predict", str(files["jpegs"]), *words, "-o", str(out), cwd=files["work"])
    wall_s = time.perf_counter() - started
    return {"images_per_second": found["images_per_second"], "photos": found["photos"], "wall_s": wall_s}


def one_round(
    rows: list[Contender], files: dict[str, Path], seconds: float, shift: int
) -> dict[str, Figures]:
    """Every row once, beginning with another one each time; in the first round also the answers."""
    figures: dict[str, Figures] = {}
    for contender in [*rows[shift:], *rows[:shift]]:
        answers = log_probs_path(files, contender)
        wanted = {} if answers.exists() else {"log_probs": str(answers)}
        found = measure(contender, files, **wanted, seconds=seconds)
        if found:
            figures[contender.name] = found
            print(f"  {contender.name}: {found['images_per_second']:.1f} images/s", file=sys.stderr)
        if (
            found and contender.name in FILES and "jpegs" in files
        ):  # right behind the session it is held against
            name = FILES[contender.name]
            figures[name] = from_files(contender, files)
            print(f"  {name}: {figures[name]['images_per_second']:.1f} images/s", file=sys.stderr)
    return figures


def log_probs_path(files: dict[str, Path], contender: Contender) -> Path:
    """Where a peer leaves its answers."""
    return files["answers"] / f"{''.join(filter(str.isalnum, contender.name))}.npy"


def accuracies(rows: list[Contender], files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Top-1 on the labels, and how often the answer is that of birdsonnx fp32, of all who answered."""
    import numpy as np

    labels = np.load(files["labels"])
    answers = {
        contender.name: np.load(path).argmax(1)
        for contender in rows
        if (path := log_probs_path(files, contender)).exists()
    }
    reference = answers.get(FP32)
    return {
        name: {
            "top_1": float((found == labels).mean()),
            "agreement": float((found == reference).mean()) if reference is not None else float("nan"),
        }
        for name, found in answers.items()
    }


def evenly(photos: "list[Any]", most: int) -> "list[Any]":
    """So many of photos that are in class order, the same number of each class within one."""
    return [photos[index * len(photos) // most] for index in range(most)] if len(photos) > most else photos


def prepare(arguments: argparse.Namespace, work: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """All files that peers read, and the reasons why some are absent. What lies in `work` already is kept."""
    import numpy as np

    from birdsonnx.images.decoding import decoder
    from birdsonnx.images.folders import read_class_folders
    from birdsonnx.images.photo_list import Photo

    data = arguments.data
    if data is None:
        data = work / "made"
        if not data.exists():
            from birdsonnx.demo import make_photos

            make_photos(data)
    data = Path(data).resolve()
    decode = decoder(224, 224, 3, None)

    def pixels(path: Path, photos: list[Photo]) -> Path:
        if not path.exists():
            np.save(path, np.stack([decode(photo.path) for photo in photos]))
        return path

    shown = read_class_folders(data / "test")
    files = {
        "work": work,
        "answers": work / "answers",
        "photos": pixels(work / "photos.npy", [*shown.photos]),
    }
    shutil.rmtree(files["answers"], ignore_errors=True)
    files["answers"].mkdir()
    files["labels"] = work / "labels.npy"
    np.save(files["labels"], [photo.label for photo in shown.photos])
    training = evenly([*read_class_folders(data / "train").photos], CALIBRATION_PHOTOS)
    calibration = pixels(work / "calibration.npy", training)
    if arguments.photos:
        files["jpegs"] = linked(data, work / "jpegs", arguments.photos)
    absent: dict[str, str] = {}

    def make(what: str, path: Path, python: Path | str, *words: Path | str) -> None:
        """Run a program that makes a file, unless that is there already."""
        if not path.exists():
            print(f"making {path.name} …", file=sys.stderr)
            done = run(python, *map(str, words))
            if done.returncode or not path.exists():
                absent[what] = reason(done)
                return
        files[what] = path

    if arguments.weights:
        files["weights"] = arguments.weights.resolve()
    elif arguments.model:
        absent["weights"] = "--weights was not given"
    else:
        make(
            "weights",
            work / "random.h5",
            PYTHON,
            "benchmarks.peers.making",
            "weights",
            calibration,
            work / "random.h5",
        )
    files["model"] = arguments.model.resolve() if arguments.model else trained(files["weights"], data, work)
    if arguments.int8:
        files["int8"] = arguments.int8.resolve()
    else:
        int8 = work / "model.int8.onnx"
        make(
            "int8",
            int8,
            PYTHON,
            "birdsonnx",
            "quantize",
            files["model"],
            "--calibrate",
            data / "train",
            "-o",
            int8,
            "--json",
        )
    plain = work / "plain.onnx"
    if "weights" in absent:
        absent["plain"] = absent["weights"]
    else:
        make(
            "plain",
            plain,
            PYTHON,
            "benchmarks.peers.making",
            "tf2onnx",
            files["weights"],
            files["model"],
            plain,
        )
    for what, source in (("nncf", "plain"), ("nncf_ours", "model")):
        if source in absent:
            absent[what] = absent[source]
            continue
        make(
            what,
            work / f"{what}.xml",
            arguments.openvino_python,
            "benchmarks.peers.making",
            "nncf",
            files[source],
            calibration,
            work / f"{what}.xml",
        )
    return files, absent


def trained(weights: Path, data: Path, work: Path) -> Path:
    """The exported network with a head trained over 6 epochs."""
    model = work / "model.onnx"
    if not model.exists():
        print("exporting a ResNet50 and training its head …", file=sys.stderr)
        labels = str(data / "train")
        birdsonnx("export", "--weights", str(weights), "--labels", labels, "-o", "fresh.onnx", cwd=work)
        (work / "config.json").write_text(json.dumps(config(work / "fresh.onnx", data)))
        birdsonnx("train", "config.json", cwd=work)
        (work / "saved/model_checkpoint_6.onnx").rename(model)
    return model


def linked(data: Path, folder: Path, least: int) -> Path:
    """Links to all photos under other names, again and again until there are at least so many."""
    photos = sorted(path for part in ("train", "valid", "test") for path in (data / part).glob("*/*"))
    shutil.rmtree(folder, ignore_errors=True)
    for copy in range(-(-least // len(photos))):
        for path in photos:
            link = folder / str(copy) / path.relative_to(data)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return folder


def require_same_inputs(work: Path, arguments: argparse.Namespace) -> None:
    """Refuse a work folder whose files were made from other data, weights or models."""
    record = work / "made_from.json"
    given = {name: getattr(arguments, name) for name in ("data", "weights", "model", "int8")}
    content = {name: str(path.resolve()) if path else None for name, path in given.items()}
    if record.exists() and json.loads(record.read_text()) != content:
        raise SystemExit(f"{work} holds what was made from {record.read_text()}; give another --work folder")
    record.write_text(json.dumps(content))


@contextlib.contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The given folder, or one that is gone afterwards."""
    if given is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The options, by default of this process."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder with train/, valid/ and test/")
    parser.add_argument("--weights", type=Path, help="backbone weights, for export and for Keras")
    parser.add_argument("--model", type=Path, help="a birdsonnx .onnx with these weights and a trained head")
    parser.add_argument("--int8", type=Path, help="the same quantised")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each peer in each round")
    parser.add_argument("--probe-seconds", type=float, default=2, help="of each combination of settings")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16], help="sizes to choose from")
    parser.add_argument(
        "--photos", type=int, default=2000, help="least number for files to HDF5; 0 leaves it out"
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="rows whose name holds a word"
    )
    parser.add_argument("--work", type=Path, help="keep models made here and use them again")
    for package in ("onnxruntime", "openvino"):
        beside = ROOT / f".venv-{package}/bin/python"
        parser.add_argument(
            f"--{package}-python",
            type=Path,
            default=beside if beside.exists() else Path(PYTHON),
            help=f"interpreter that has {package} (default: that of .venv-{package}, else this one)",
        )
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="write a picture of the table here")
    return parser.parse_args(words)


def main() -> None:
    arguments = parsed()
    if arguments.onnxruntime_python == Path(PYTHON):
        print("no .venv-onnxruntime: 'newest onnxruntime' is this interpreter's", file=sys.stderr)
    with work_folder(arguments.work) as work:
        require_same_inputs(work, arguments)
        files, absent = prepare(arguments, work)
        rows = contenders(files, absent, arguments)
        results: dict[str, Any] = {
            "cores": CORES,
            "cpu": isa.cpuinfo("model name") or platform.processor(),
            "files": sum(1 for _ in files["jpegs"].glob("*/*/*/*")) if "jpegs" in files else 0,
            "probes": {},
            "rounds": [],
        }
        for row in rows:
            results["probes"][row.name] = choose(row, files, arguments.probe_seconds)
            print(f"{row.name}: {row.missing or row.told}", file=sys.stderr)
        for number in range(arguments.rounds):
            print(f"round {number + 1}", file=sys.stderr)
            shift = number * len(rows) // arguments.rounds
            results["rounds"].append(one_round(rows, files, arguments.seconds, shift))
            results["accuracy"] = accuracies(rows, files)
            results["contenders"] = {
                row.name: {
                    "group": row.group,
                    "settings": row.told,
                    "missing": row.missing,
                    "environment": row.environment,
                }
                for row in rows
            }
            if arguments.json is not None:
                from birdsonnx.doctor import examine

                arguments.json.write_text(json.dumps({**results, "environment": examine()}, indent=2) + "\n")
    print(f"{CORES} cores of {results['cpu']}, {len(results['rounds'])} interleaved rounds\n")
    print(markdown(results))
    if arguments.plot is not None:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
