"""What `birdsonnx evaluate` takes for many classes, up to the 11,000 species of birds: `make bench-classes`.

Makes predictions files of so many classes, with as many photos of each class, 3 of 10 of them named wrong.
Evaluates each as text, with --json, with --csv and with --plot, in processes of their own and in interleaved
rounds. Medians of the seconds and of those of CPU time, and the largest peak of memory, go to stdout as
Markdown, all figures to `--json FILE`.

    python -m benchmarks.many_classes [--classes 2000 4000 11000] [--photos 2] [--rounds 3]

The file of 11,000 classes and 22,000 photos takes 1 GB of the folder for temporary files: TMPDIR.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_mb
from birdsonnx.inference.keeping import hdf5

FORMS: dict[str, tuple[str, ...]] = {
    "text": (),
    "--json": ("--json",),
    "--csv": ("--csv", "table.csv"),
    "--plot": ("--plot", "confusion.png"),
}
RIGHT = 0.7
"""Of the photos."""
LOOK_S = 0.005
"""Between two looks at an evaluation's memory; its seconds are as exact as that."""


@dataclass(frozen=True)
class Measured:
    """One evaluation."""

    classes: int
    form: str
    seconds: float
    """Of the whole process."""
    cpu_s: float
    peak_mb: float


def make_predictions(path: Path, classes: int, per_class: int) -> None:
    """Write a predictions file as `predict` does, of photos that nobody took."""
    chance = np.random.default_rng(0)
    names = [f"SPECIES {index:05}" for index in range(classes)]
    with hdf5.writing(path, names, "0" * 64) as file:
        for label, name in enumerate(names):
            for photo in range(per_class):
                log_probs = np.full(classes, -12, np.float32)
                log_probs[label if chance.random() < RIGHT else chance.integers(classes)] = -0.1
                file.put(f"{name}/{photo}.jpg", log_probs)


def measured(path: Path, classes: int, form: str) -> Measured:
    """Evaluate a file in a process of its own. Raises SystemExit where that fails."""
    words = [sys.executable, "-m", "birdsonnx", "evaluate", path.name, *FORMS[form]]
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=path.parent, stdout=subprocess.DEVNULL)
    most_mb, ended = 0.0, 0
    while not ended:
        most_mb = max(most_mb, peak_mb(process.pid))
        time.sleep(LOOK_S)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed with status {process.returncode}")
    seconds, cpu_s = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return Measured(classes, form, seconds, cpu_s, most_mb)


def markdown(found: list[Measured], per_class: int) -> str:
    """A table: median seconds, and the largest peak of memory."""
    lines = ["| classes | photos | with | seconds | CPU seconds | MB |", "|---|---|---|---|---|---|"]
    for classes, form in dict.fromkeys((each.classes, each.form) for each in found):
        of_one = [each for each in found if (each.classes, each.form) == (classes, form)]
        seconds = statistics.median(each.seconds for each in of_one)
        cpu_s = statistics.median(each.cpu_s for each in of_one)
        most = max(each.peak_mb for each in of_one)
        lines.append(
            f"| {classes:,} | {classes * per_class:,} | {form} | {seconds:.1f} | {cpu_s:.1f} | {most:.0f} |"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[2000, 4000, 11_000])
    parser.add_argument("--photos", type=int, default=2, help="of each class")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures")
    options = parser.parse_args(words)
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {classes: Path(folder, f"output_{classes}.h5") for classes in options.classes}
        for classes, path in files.items():
            make_predictions(path, classes, options.photos)
        for _ in range(options.rounds):
            for classes, path in files.items():
                found += [measured(path, classes, form) for form in FORMS]
    print(markdown(found, options.photos))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
