"""A detector's boxes in photos of 2 megapixels, against the bare session: `make bench-crops MODELS=…`.

Makes photos of invented birds, three in each, with the grain of a camera, and a detector's file of them.
For each model, in interleaved rounds: the yardstick of benchmarks/bare.py (a session with default options,
batch 8, no decoding); the streams alone, which predict computes with, fed with crops that lie in memory; and
what `predict --detections` does, from the files to HDF5 and to MegaDetector's format. Medians, and those of
each round's own ratios, go to stdout as Markdown; the ratio of CPU time, to the streams alone, tells more
where other programs run beside.

    python -m benchmarks.crops MODEL... [--photos 1000] [--rounds 5]

The 40 files that the photos are links to take 20 MB of the folder for temporary files: TMPDIR.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from birdsonnx.images import detections, found_boxes
from birdsonnx.images.crops import BoxRequest, decode_runs, whole_photos
from birdsonnx.images.inputs import collect
from birdsonnx.inference.classifier import Classifier, open_classifier
from birdsonnx.inference.forward import answer
from birdsonnx.inference.prediction import Files, record
from birdsonnx.invented_birds import SPECIES, picture
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import in_streams, slices
from birdsonnx.runtime.threads import available_cores

WIDTH, HEIGHT = 1632, 1224
DISTINCT = 40
"""Files; the other photos are links to them."""
BIRDS = 3
"""In a photo."""
GRAIN = 10
"""Standard deviation of the camera's noise, in levels: JPEGs of 0.5 MB, as camera traps write them."""


def make_photos(folder: Path, count: int) -> Path:
    """`folder/card` with so many photos, and a detector's file of them."""
    chance = np.random.default_rng(0)
    card = folder / "card"
    card.mkdir()
    images: list[dict[str, Any]] = []
    for number in range(count):
        path = card / f"IMG_{number:04}.JPG"
        if number < DISTINCT:
            boxes = _make_photo(path, chance)
            images.append({"detections": [{"category": "1", "conf": 0.9, "bbox": box} for box in boxes]})
        else:
            path.symlink_to(card / f"IMG_{number % DISTINCT:04}.JPG")
            images.append(dict(images[number % DISTINCT]))
        images[-1]["file"] = path.name
    file = folder / "found.json"
    content = {"info": {"format_version": "1.5"}, "detection_categories": {"1": "animal"}, "images": images}
    file.write_text(json.dumps(content))
    return file


def _make_photo(path: Path, chance: np.random.Generator) -> list[list[float]]:
    coarse = Image.fromarray(chance.integers(60, 160, (HEIGHT // 24, WIDTH // 24, 3), np.uint8))
    photo = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    boxes = []
    for place in range(BIRDS):
        side = int(chance.integers(200, 500))
        left = place * WIDTH // BIRDS + int(chance.integers(0, WIDTH // BIRDS - side))
        top = int(chance.integers(0, HEIGHT - side))
        species = list(SPECIES.values())[int(chance.integers(len(SPECIES)))]
        bird = picture(species, chance).resize((side, side))
        photo.paste(bird, (left, top))
        boxes.append([left / WIDTH, top / HEIGHT, side / WIDTH, side / HEIGHT])
    pixels = np.asarray(photo) + chance.normal(0, GRAIN, (HEIGHT, WIDTH, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=85)
    return boxes


Seconds = tuple[float, float]
"""Of the clock, and of all cores."""


@contextmanager
def timed(into: list[Seconds]) -> Iterator[None]:
    clock, cpu = time.perf_counter(), time.process_time()
    yield
    into.append((time.perf_counter() - clock, time.process_time() - cpu))


def bare_session(model: Path, count: int) -> float:
    """Seconds that the yardstick takes for so many photos."""
    program = Path(__file__).with_name("bare.py")
    done = subprocess.run(
        [sys.executable, str(program), str(model), str(count)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def streams_alone(classifier: Classifier, pixels: np.ndarray, count: int) -> None:
    """So many crops through the network, in its streams."""

    def run(piece: Sequence[int]) -> None:
        answer(classifier.engine, pixels[: len(piece)])

    for _ in in_streams(classifier.streams, run, slices(range(count), classifier.per_run)):
        pass


def measure(model: Path, folder: Path, file: Path, photos: int, rounds: int) -> str:
    """A line of the table."""
    request = BoxRequest(file)
    found = detections.read(request)
    crops = found_boxes.find(found, collect([str(folder / "card")]), request, print).crops
    classifier = open_classifier(model, model.name, len(crops), len(available_cores()))
    of_one = [crops[index] for index in range(BIRDS * classifier.per_run)]
    pixels, _, _ = next(decode_runs(classifier.decoder, of_one, whole_photos(of_one), classifier.per_run))
    bare: list[float] = []
    alone: list[Seconds] = []
    whole: list[Seconds] = []
    per_round = photos // rounds * BIRDS
    parts = [crops[: 10 * BIRDS]]  # to warm up
    parts += [crops[number * per_round :][:per_round] for number in range(rounds)]
    for part in parts:
        bare.append(bare_session(model, len(part)))
        with timed(alone):
            streams_alone(classifier, pixels, len(part))
        with timed(whole):
            files = Files(folder / "out.h5", results=folder / "out.json", boxes=request, detections=found)
            record(classifier, part, Ranks(), files)
    clocks = [bare[1:], *([clock for clock, _ in each[1:]] for each in (alone, whole))]
    cells = [f"{per_round / statistics.median(each):.1f}" for each in clocks]
    cpu = [[seconds for _, seconds in each[1:]] for each in (alone, whole)]
    for one, other in ((clocks[0], clocks[2]), (clocks[1], clocks[2]), (cpu[0], cpu[1])):
        ratios = [first / second for first, second in zip(one, other, strict=True)]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return f"| {model.name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = make_photos(folder, arguments.photos)
        sizes = [path.stat().st_size for path in (folder / "card").iterdir() if not path.is_symlink()]
        size = statistics.mean(sizes) / 1e6
        print(f"{arguments.photos} photos of {WIDTH} x {HEIGHT} pixels, {size:.2f} MB each\n")
        titles = ["model", "bare session, images/s", "streams alone, images/s", "crops/s"]
        titles += ["to the bare session", "to the streams alone", "of CPU time"]
        print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
        for model in arguments.models:
            print(measure(model, folder, file, arguments.photos, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
