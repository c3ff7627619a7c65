"""What a million names cost, stage by stage: `python -m benchmarks.million`.

Makes so many names of small photos (hard links to a few JPEGs of 8 x 8), in one folder and in 400. Each stage
runs in a process of its own: its seconds, and the largest memory of that process (VmHWM, libraries
included), go to stdout as Markdown. No photo is decoded and no network runs: what is kept of photos is drawn
at random, also in the last stage, the whole of `predict` with HDF5, CSV and JSON, alone and under mpirun.

    python -m benchmarks.million [--names 100000 1000000] [--folders 1 400] [--stages list hdf5 …]

A million names of 400 classes take 2 GB of `--work` for each layout of the predictions, and 1 million
directory entries; all of it is removed.
"""

import argparse
import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.memory import peak_mb

LINKS = 40_000
"""Names of one JPEG; ext4 allows 65,000."""


@dataclass(frozen=True)
class Case:
    """What a stage works on."""

    folder: Path
    names: int
    work: Path
    classes: int
    layout: str
    ranks: int = 1


@dataclass
class Clock:
    """Times a part of a stage: what it needs is made before."""

    seconds: float = 0.0
    peak_mb: float = 0.0
    """Of the rank that has most; 0: there is one rank only."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def make_names(folder: Path, names: int, folders: int) -> None:
    """Hard links `IMG_0000000.jpg` … to a few JPEGs, in `SPECIES 000` … where there are several folders."""
    chance = np.random.default_rng(0)
    originals = folder.parent / "originals"
    originals.mkdir(parents=True, exist_ok=True)
    for number in range(folders):
        place = folder / f"SPECIES {number:03}" if folders > 1 else folder
        place.mkdir(parents=True)
        for index in range(number, names, folders):
            original = originals / f"{folder.name}_{index // LINKS}.jpg"
            if not original.exists():
                Image.fromarray(chance.integers(0, 255, (8, 8, 3), np.uint8)).save(original)
            os.link(original, f"{place}/IMG_{index:07}.jpg")


# --- the stages ------------------------------------------------------------------------------------------


def _listed(case: Case):  # type: ignore[no-untyped-def]
    from birdsonnx.images.inputs import collect

    return collect([str(case.folder)])


def _list(case: Case, clock: Clock) -> None:
    with clock.running():
        assert len(_listed(case)) == case.names


def _class_folders(case: Case, clock: Clock) -> None:
    from birdsonnx.images.folders import read_class_folders

    with clock.running():
        assert len(read_class_folders(case.folder).photos) == case.names


def _to_ranks(case: Case, clock: Clock) -> None:
    photos = _listed(case)
    with clock.running():
        content = pickle.dumps(photos, pickle.HIGHEST_PROTOCOL)
        assert len(pickle.loads(content)) == case.names


def _status(case: Case, clock: Clock) -> None:
    from birdsonnx.images.photo_status import status_of
    from birdsonnx.inference import deciding

    photos = _listed(case)
    with clock.running():
        deciding._list_of(photos)
        assert len(status_of(photos)) == case.names


def _sequences(case: Case, clock: Clock) -> None:
    from birdsonnx.images import sequences
    from birdsonnx.inference.judging import bursts
    from birdsonnx.inference.naming import Named
    from birdsonnx.runtime.audience import NOBODY
    from birdsonnx.runtime.ranks import Ranks

    def shot(photo) -> sequences.Shot:  # type: ignore[no-untyped-def]
        number = int(photo.path.stem[4:])
        return sequences.Shot(datetime(2025, 1, 1) + timedelta(minutes=number // 3), ("camera",))

    sequences._looked_at = shot
    photos = _listed(case)
    row = np.log(np.full(case.classes, 1 / case.classes, np.float32))
    with clock.running():
        found = bursts.sequences_of(photos, 30.0, Ranks(), NOBODY)
        outcomes = (Named(photo, row, index=index) for index, photo in enumerate(photos))
        assert sum(1 for _ in bursts.sharing(outcomes, found)) == case.names


def _detections(case: Case, clock: Clock) -> None:
    from birdsonnx.images import detections, found_boxes
    from birdsonnx.images.crops import BoxRequest
    from birdsonnx.inference.units import Pieces

    photos, path = _listed(case), case.work / "found.json"
    box = {"category": "1", "conf": 0.9, "bbox": [0.1234, 0.2345, 0.3456, 0.4567]}
    with path.open("w") as file:
        file.write('{"info": {"format_version": "1.3"}, "detection_categories": {"1": "animal"}, "images": [')
        for index, photo in enumerate(photos):
            text = json.dumps({"file": photo.name, "detections": [box, box | {"conf": 0.1}]})
            file.write("," * (index > 0) + text)
        file.write("]}")
    with clock.running():
        request = BoxRequest(path)
        found = found_boxes.find(detections.read(request), photos, request, print)
        assert Pieces(found.crops, 4).photos == case.names


def _training(case: Case, clock: Clock) -> None:
    from types import SimpleNamespace

    from birdsonnx.images.folders import read_class_folders
    from birdsonnx.runtime.ranks import Ranks
    from birdsonnx.training import feature_table, photo_contents, resuming

    folder = read_class_folders(case.folder)
    backbone = SimpleNamespace(model=b"", decoder=None, computed_by=())
    photo_contents.hashed = lambda photos, _: np.zeros(  # type: ignore[assignment]
        (sum(1 for _ in photos), photo_contents.FINGERPRINT_BYTES), np.uint8
    )
    with clock.running():
        contents = photo_contents.of(folder.photos, case.work, 1, Ranks())
        feature_table.key(backbone, folder.photos, contents)  # type: ignore[arg-type]
        resuming.photos_of(folder)
        np.array([photo.label for photo in folder.photos])
        np.random.default_rng(0).permutation(len(folder.photos))


def _answers(case: Case, photos) -> Iterator[object]:  # type: ignore[no-untyped-def]
    from birdsonnx.inference.judging.verdicts import Judge, Judged

    judge = Judge(_class_names(case))
    rows = np.log(np.random.default_rng(0).dirichlet(np.full(case.classes, 0.1), 64) + 1e-9)
    rows = rows.astype(np.float32)
    for index, photo in enumerate(photos):
        row = rows[index % 64]
        yield Judged(photo, row, judge.verdict(row))


def _class_names(case: Case) -> list[str]:
    return [f"SPECIES {index:03}" for index in range(case.classes)]


def _hdf5(case: Case, clock: Clock) -> None:
    from birdsonnx.inference.keeping import hdf5

    photos = _listed(case)
    names = _class_names(case)
    path = _predictions(case)
    with clock.running(), _writing(hdf5, path, names, case, photos) as file:
        for each in _answers(case, photos):
            file.add(each)


def _writing(hdf5, path, names, case, photos):  # type: ignore[no-untyped-def]
    from birdsonnx.inference.keeping import hdf5_table

    table = hdf5_table.Size.of(photos) if case.layout == "table" else None
    return hdf5.writing(path, names, "0" * 64, table=table)


def _predictions(case: Case) -> Path:
    return case.work / f"{case.folder.name}_{case.layout}.h5"


def _evaluate(case: Case, clock: Clock) -> None:
    from birdsonnx.inference.evaluating import evaluation
    from birdsonnx.runtime.audience import NOBODY
    from birdsonnx.runtime.ranks import Ranks

    labels = case.work / "labels.csv"
    if case.folder.name.endswith("_1"):
        with labels.open("w") as file:
            file.writelines(f"IMG_{index:07}.jpg,SPECIES 001\n" for index in range(case.names))
    with clock.running():
        request = evaluation.Request(_predictions(case), labels=labels if labels.exists() else None)
        found = evaluation.evaluate_target(request, Ranks(), NOBODY)
        assert found.figures is not None
        assert found.figures.photos == case.names
    labels.unlink(missing_ok=True)


def _report(case: Case, clock: Clock) -> None:
    from birdsonnx.reporting.page import making
    from birdsonnx.runtime.audience import NOBODY
    from birdsonnx.runtime.ranks import Ranks

    with clock.running():
        making.make(making.Request(_predictions(case), output=case.work / "report.html"), Ranks(), NOBODY)


def _csv(case: Case, clock: Clock) -> None:
    from birdsonnx.inference.judging.verdicts import Judge
    from birdsonnx.inference.keeping import csv_file
    from birdsonnx.inference.keeping.csv_columns import Columns

    photos = _listed(case)
    columns = Columns.of(Judge(_class_names(case)), photos)
    with clock.running(), csv_file.writing(case.work / "names.csv", columns) as file:
        for each in _answers(case, photos):
            file.add(each)


def _results(case: Case, clock: Clock) -> None:
    from birdsonnx.inference.keeping import results_file

    photos = _listed(case)
    origin = results_file.Origin("model.onnx", "0" * 64, _class_names(case))
    with clock.running(), results_file.writing(case.work / "names.json", origin) as file:
        for each in _answers(case, photos):
            file.add(each)


def _sort(case: Case, clock: Clock) -> None:
    from birdsonnx.inference.keeping.sorting import Sorter
    from birdsonnx.runtime.audience import NOBODY

    photos = _listed(case)
    sorter = Sorter(case.work / "sorted", copies=False)
    with clock.running():
        for each in _answers(case, photos):
            sorter.add(each)
        sorter.place(None, NOBODY)


def _predict(case: Case, clock: Clock) -> None:
    from birdsonnx.inference import naming, prediction, requests
    from birdsonnx.inference.forward import Chunk
    from birdsonnx.runtime import ranks
    from birdsonnx.runtime.audience import NOBODY
    from tests.tiny import tiny_model

    joined = ranks.join()
    model = case.work / "model.onnx"
    joined.first(lambda: tiny_model(case.classes, _class_names(case)).save(model))
    rows = np.random.default_rng(0).dirichlet(np.full(case.classes, 0.1), 64)
    drawn = np.log(rows + 1e-9).astype(np.float32)

    def instead(_engine, _decoder, photos):  # type: ignore[no-untyped-def]
        def run(piece: Sequence[int]) -> Chunk:
            assert all(photos[index].path for index in piece)
            return Chunk(tuple(piece), drawn[[index % 64 for index in piece]], ())

        return run

    naming.run_of_photos = instead  # type: ignore[assignment]
    request = requests.Request(
        [str(case.folder)],
        model,
        case.work / f"predictions_{case.layout}",
        "table" if case.layout == "table" else "datasets",
        engine="onnxruntime",
        csv=case.work / "names.csv",
        results=case.work / "names.json",
        overwrite=True,
    )
    with clock.running():
        prediction.predict(request, joined, NOBODY)
    clock.peak_mb = max(joined.everyone(peak_mb()))
    if not joined.is_first:
        raise SystemExit


STAGES: dict[str, Callable[[Case, Clock], None]] = {
    "list": _list,
    "class folders": _class_folders,
    "to ranks": _to_ranks,
    "status": _status,
    "sequences": _sequences,
    "detections": _detections,
    "training": _training,
    "hdf5": _hdf5,
    "evaluate": _evaluate,
    "report": _report,
    "csv": _csv,
    "results": _results,
    "sort": _sort,
    "predict": _predict,
}
OF_LAYOUT = ("hdf5", "evaluate", "report", "predict")
OF_CLASSES = ("class folders", "training")
"""Stages that need class folders."""


def run_stage(stage: str, case: Case) -> None:
    """Carry out one stage here, and print its figures as JSON."""
    clock = Clock()
    begun = time.process_time()
    STAGES[stage](case, clock)
    cpu_s = time.process_time() - begun
    print(json.dumps({"seconds": clock.seconds, "cpu_s": cpu_s, "peak_mb": clock.peak_mb or peak_mb()}))


def measured(stage: str, case: Case) -> dict[str, float]:
    """The figures of a stage in a process of its own. Raises SystemExit where it fails."""
    words = [sys.executable, "-m", "benchmarks.million", "--stage", stage, "--folder", str(case.folder)]
    words += ["--names", str(case.names), "--work", str(case.work), "--classes", str(case.classes)]
    launcher = [str(Path(sys.executable).parent / "mpirun"), "-np", str(case.ranks)] if case.ranks > 1 else []
    words = [*launcher, *words, "--layouts", case.layout]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--names", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folders", type=int, nargs="+", default=[1, 400])
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--layouts", nargs="+", default=["datasets", "table"])
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--work", type=Path, help="a folder for all files (default: a temporary one)")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.stage:
        [names], [layout] = options.names, options.layouts
        run_stage(options.stage, Case(options.folder, names, options.work, options.classes, layout))
        return
    print("| stage | folders | names | seconds | CPU seconds | MB |", "|---|---|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        for names in options.names:
            for folders in options.folders:
                folder = Path(temporary, "photos", f"{names}_{folders}")
                make_names(folder, names, folders)
                work = Path(temporary, "work")
                for stage in options.stages:
                    if stage in OF_CLASSES and folders == 1:
                        continue
                    layouts = options.layouts if stage in OF_LAYOUT else options.layouts[:1]
                    for layout, ranks in product(layouts, (1, 2) if stage == "predict" else (1,)):
                        work.mkdir(exist_ok=True)
                        found = measured(stage, Case(folder, names, work, options.classes, layout, ranks))
                        title = f"{stage}, {layout}" if stage in OF_LAYOUT else stage
                        title += f", {ranks} ranks" if ranks > 1 else ""
                        print(
                            f"| {title} | {folders} | {names:,} | {found['seconds']:.1f} | "
                            f"{found['cpu_s']:.1f} | {found['peak_mb']:.0f} |",
                            flush=True,
                        )
                shutil.rmtree(work, ignore_errors=True)
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
