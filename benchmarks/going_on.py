"""Whether a prediction of very many photos survives anything: killed at random moments, alone or under MPI.

Makes a small network and hard links of small JPEGs, names them once in peace, then again with SIGKILL at
random moments (under `mpirun` to one random rank) until it has been killed so many times and ended. Prints
seconds, the largest peak of memory of a process, and whether every file is byte for byte the same; a name
that is missing or there twice is an error.

    python -m benchmarks.going_on [--names 1000000] [--folders 400] [--kills 20] [--ranks 1] [--folder PLACE]

The files of a million names and 100 classes take 2 GB of the folder for temporary files: TMPDIR, or PLACE.
"""

import argparse
import contextlib
import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from benchmarks.memory import peak_mb
from tests.tiny import photo, tiny_model

MPIRUN = Path(sys.executable).parent / "mpirun"
LINKS = 50_000
"""Of one file; ext4 allows 65,000."""
RESULTS = ("predictions/output_1.h5", "names.csv", "named.json")
WORDS = ("predict", "photos", "--model", "model.onnx", "--csv", "names.csv", "--results", "named.json")
PROGRESS = f"{RESULTS[0]}.progress"
LOOK_S = 0.05


def make(folder: Path, names: int, folders: int, classes: int) -> None:
    """Write `model.onnx` and `photos/`, of so many names in so many folders."""
    tiny_model(classes, [f"SPECIES {index:03}" for index in range(classes)]).save(folder / "model.onnx")
    generator = np.random.default_rng(0)
    originals = []
    for number in range(max(7, -(-names // LINKS))):
        originals.append(folder / f"original_{number}.jpg")
        photo(number, generator, 40).save(originals[-1])
    for place in range(folders):
        (folder / "photos" / f"{place:03}").mkdir(parents=True)
    for number in range(names):
        name = folder / "photos" / f"{number % folders:03}" / f"{number:07}.jpg"
        name.hardlink_to(originals[number % len(originals)])


def processes_of(root: int) -> list[int]:
    """The process and all that it started, as far as they live."""
    found, children = [], [root]
    while children:
        process = children.pop()
        found.append(process)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                children += map(int, (task / "children").read_text().split())
    return found


def is_ours(process: int) -> bool:
    """Whether it is a rank, and no launcher."""
    with contextlib.suppress(OSError):
        return b"birdsonnx\0predict" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


@dataclass
class Run:
    """One process, or `mpirun` with several."""

    folder: Path
    ranks: int
    words: Sequence[str] = WORDS
    seconds: float = 0
    peak_mb: float = 0
    working_s: float = 0
    """When the first photos were done."""
    code: int | None = None
    lines: list[str] = field(default_factory=list)

    def __call__(self, kill_at_s: float | None = None, chance: random.Random | None = None) -> "Run":
        """Let it end, or kill one of its processes after so many seconds."""
        launcher = [str(MPIRUN), "-np", str(self.ranks)] if self.ranks > 1 else []
        command = [*launcher, sys.executable, "-m", "birdsonnx", *self.words]
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT)
            while process.poll() is None:
                ours = [each for each in processes_of(process.pid) if is_ours(each)]
                self.peak_mb = max([self.peak_mb, *map(peak_mb, ours)])
                if not self.working_s and any((self.folder / PROGRESS).glob("*.units")):
                    self.working_s = time.monotonic() - started
                if kill_at_s is not None and chance is not None and time.monotonic() - started >= kill_at_s:
                    if ours:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(chance.choice(ours), signal.SIGKILL)
                    kill_at_s = None
                time.sleep(LOOK_S)
            self.seconds, self.code = time.monotonic() - started, process.returncode
            out.seek(0)
            self.lines = out.read().splitlines()
        return self


def require_all(path: Path, names: int) -> None:
    """Raises SystemExit where a file has not every name once."""
    found = 0

    def count(_: str, item: object) -> None:
        nonlocal found
        found += isinstance(item, h5py.Dataset)

    with h5py.File(path / RESULTS[0]) as file:
        file.visititems(count)
    with (path / RESULTS[1]).open() as table:
        lines = [line.split(",", 1)[0] for line in table][1:]
    images = json.loads((path / RESULTS[2]).read_text())["images"]
    if not found == len(lines) == len(set(lines)) == len(images) == names:
        sys.exit(f"{found} datasets, {len(lines)} lines, {len(images)} entries; wanted {names} of each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=400)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files go; default: that for temporary files")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        folder = Path(place)
        make(folder, asked.names, asked.folders, asked.classes)
        measure(folder, asked)


def measure(folder: Path, asked: argparse.Namespace) -> None:
    """Print the figures. Raises SystemExit where a run fails or its files differ."""
    calm = Run(folder, asked.ranks)()
    if calm.code:
        sys.exit("\n".join(calm.lines[-3:]))
    require_all(folder, asked.names)
    print(
        f"{asked.names:,} names on {asked.ranks} ranks in peace: {calm.seconds:.1f} s, {calm.peak_mb:.0f} MB",
        flush=True,
    )
    for name in RESULTS:
        (folder / name).rename(folder / f"{Path(name).name}.calm")
    chance, kills, seconds, most_mb = random.Random(asked.seed), 0, 0.0, 0.0
    latest_s = calm.working_s + 2 * (calm.seconds - calm.working_s) / asked.kills  # so that all of them come
    while kills < asked.kills:
        run = Run(folder, asked.ranks)(chance.uniform(0, latest_s), chance)
        seconds, most_mb = seconds + run.seconds, max(most_mb, run.peak_mb)
        if run.code == 0:
            sys.exit(f"it ended after {kills} kills; take more names or fewer kills")
        kills += 1
        said = [line for line in run.lines if line.startswith("going on after ")]
        print(f"kill {kills} after {run.seconds:.1f} s; {said[0] if said else 'before a word'}", flush=True)
    last = Run(folder, asked.ranks)()
    print(next((line for line in last.lines if line.startswith("going on after ")), "begun anew"))
    seconds, most_mb = seconds + last.seconds, max(most_mb, last.peak_mb)
    print(f"the last run: {last.seconds:.1f} s; all together: {seconds:.1f} s, {most_mb:.0f} MB")
    require_all(folder, asked.names)
    for name in RESULTS:
        same = filecmp.cmp(folder / name, folder / f"{Path(name).name}.calm", shallow=False)
        print(f"{name}: {'the same bytes' if same else 'OTHER BYTES'}")
        if not same:
            sys.exit(1)


if __name__ == "__main__":
    main()
