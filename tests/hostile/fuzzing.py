"""Damaged inputs without end: what comes of each is a result or a refusal of ours, and never anything else.

    python -m tests.hostile.fuzzing [SECONDS] [TARGET …]

runs until the time is over, from a seed of its own, and prints what it tried. A failure prints the target and
the number of its input: `Target(...).try_input(number)` makes the same one again.
"""

import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from birdsonnx.config.reading import parse
from birdsonnx.config.transforms import Resize
from birdsonnx.errors import BirdsonnxError
from birdsonnx.images import detections, found_boxes
from birdsonnx.images.crops import BoxRequest
from birdsonnx.images.decoding import decoder
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judged, Verdict
from birdsonnx.inference.keeping import hdf5
from birdsonnx.inference.keeping.results_file import Origin, ResultsWriter
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.soundness import require_sound
from birdsonnx.reporting.printable import printable
from tests.tiny import tiny_model

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where files cost no disk: else opening them takes longer than all the rest."""

PIECES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"\n",
    b"\x1b[",
    b"NaN",
    b"1e999",
    b"[",
    b"{",
    b'"',
    b"9" * 40,
)
VALUES = (None, True, False, 0, 1, -1, 3, 0.5, 1e308, 2**31, 2**70, "", "x", "a\0", "NaN", [], {}, [[]])
NAMES = "abc/.. \\\"'=\0\n\x1b\x7f\u0301\u202e\ud800\ue000\U0001f426é一"


def mutated(chance: random.Random, sources: Sequence[bytes]) -> bytes:
    """One of the sources, changed in one to four places."""
    content = bytearray(chance.choice(sources))
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(content) + 1)
        length = min(len(content) - place, int(chance.expovariate(0.1)) + 1)
        match chance.randrange(7):
            case 0 if length:
                content[place] ^= 1 << chance.randrange(8)
            case 1 if length:
                content[place] = chance.randrange(256)
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = content[place : place + length]
            case 4:
                content[place : place + len(PIECES)] = chance.choice(PIECES)
            case 5:
                other = chance.choice(sources)
                start = chance.randrange(len(other))
                content[place : place + length] = other[start : start + length]
            case 6 if len(content) > 1:
                del content[chance.randrange(1, len(content)) :]
    return bytes(content)


def json_text(chance: random.Random, value: Any) -> str:
    """A value's JSON with another value somewhere in it, or with other bytes."""
    if chance.random() < 0.4:
        return mutated(chance, [json.dumps(value).encode()]).decode(errors="surrogateescape")
    value = whole = [json.loads(json.dumps(value))]
    key: Any = 0
    while isinstance(value[key], dict | list) and value[key] and chance.random() < 0.9:
        value = value[key]
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    value[key] = chance.choice(VALUES)
    return json.dumps(whole[0])


def _photos() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    files = []
    for kind, mode in (
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "P", "LA", "1")),
        *(("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("PPM", "RGB")),
    ):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        Image.fromarray(pixels).convert(mode).save(file, kind, **options)
        files.append(file.getvalue())
    for kind, more in (
        ("JPEG", {"progressive": True}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("AVIF", {"speed": 10}),
    ):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **more)
        files.append(file.getvalue())
    return files


def photo_target(folder: Path) -> Callable[[random.Random], None]:
    """A damaged photo is refused, or gives pixels of the network's size."""
    files, decode, path = _photos(), decoder(16, 16, 3, (Resize(16, 16),)), folder / "photo"

    def one(chance: random.Random) -> None:
        path.write_bytes(mutated(chance, files))
        pixels = decode(path)
        assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)

    return one


def model_target(folder: Path) -> Callable[[random.Random], None]:
    """A damaged model is refused before the runtime sees it, or has metadata that can be believed."""
    files = [tiny_model(3, names).serialized() for names in (None, ("A", "B", "C"))]

    def one(chance: random.Random) -> None:
        content = mutated(chance, files)
        require_sound(content, "model.onnx")
        assert isinstance(Metadata.of_file(content, "model.onnx").trainable, tuple)

    return one


def metadata_target(folder: Path) -> Callable[[random.Random], None]:
    """The same of one value alone."""
    history = ({"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "test_loss": 0.5, "test_accuracy": 0.5},)
    metadata = tiny_model(3, ("A", "B", "C")).metadata.having(history=history, run={"run": 1, "epoch": 1})
    props = metadata.as_props()

    def one(chance: random.Random) -> None:
        key = chance.choice(sorted(props))
        text = json_text(chance, json.loads(props[key]))
        Metadata.from_props({**props, key: text}, "model.onnx").as_props()

    return one


def config_target(folder: Path) -> Callable[[random.Random], None]:
    """A damaged config is refused in words that are printable, or read."""
    config = {
        "neural_network": {
            "outfile": "out.txt",
            "num_epochs": 6,
            "layers": [{"class_name": "Dense", "config": {"units": 3}}],
            "checkpoints": {"load": "a.onnx", "save": "saved/", "interval": 2},
            "data": {
                "input_path": "data/train",
                "batch_size": 64,
                "transforms": [{"resize": [224, 224]}, {"normalize": {"mean": [0.5], "std": 0.5}}],
            },
            "optimizer": {"type": "SGD", "momentum": 0.9, "lr_scheduler": {"type": "Cosine"}},
            "loss": {"function": "NLL", "weight": [1, 2.5]},
            "birdsonnx": {"seed": 3, "trainable": ["conv5*"], "cache": False, "label_smoothing": 0.1},
        }
    }

    def one(chance: random.Random) -> None:
        parse(json_text(chance, config), "config.json")

    return one


def detections_target(folder: Path) -> Callable[[random.Random], None]:
    """A damaged file of a detector is refused; or what comes of it, with our classes in it, is one again, and
    has the same boxes."""
    box = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}
    images = [
        {"file": "a.jpg", "detections": [box, {**box, "category": "2"}]},
        {"file": "b\\c.jpg", "detections": [{**box, "classifications": [["0", 0.9]]}], "sequence": 7},
        {"file": "d.jpg", "failure": "unreadable", "detections": None},
        {
            "file": "e.mp4",
            "detections": [{**box, "frame_number": 3}],
            "frame_rate": 20,
            "frames_processed": [3],
        },
    ]
    categories = {"1": "animal", "2": "person"}
    content = {"images": images, "detection_categories": categories, "info": {"format_version": "1.5"}}
    request, again = BoxRequest(folder / "found.json"), BoxRequest(folder / "again.json")
    photos = [Photo(folder / name, name) for name in ("a.jpg", "b/c.jpg")]
    answer = np.zeros(1, np.float32), Verdict("COOT", 1.0, [("COOT", 1.0)])

    def one(chance: random.Random) -> None:
        request.file.write_bytes(json_text(chance, content).encode(errors="surrogateescape"))
        read = detections.read(request)
        found = found_boxes.find(read, photos, request, lambda line: None)
        for crop in found.crops:
            left, top, right, bottom = crop.region(80, 60)
            assert 0 <= left < right <= 80
            assert 0 <= top < bottom <= 60
        writer = ResultsWriter(Origin("m.onnx", "", ("COOT",), request, read))
        for crop in found.crops:
            writer.add(Judged(crop, *answer))
        for photo, reason in found.refused:
            writer.refuse(photo, reason)
        with again.file.open("w", encoding="utf-8") as file:
            writer.write(file)
        assert [crop.box for crop in found_boxes.find(detections.read(again), photos, again, str).crops] == [
            crop.box for crop in found.crops
        ]

    return one


def name_target(folder: Path) -> Callable[[random.Random], None]:
    """A photo's name is refused, or comes back from HDF5 as it was; and is one line on a terminal."""
    path = folder / "names.h5"

    def one(chance: random.Random) -> None:
        name = "".join(chance.choices(NAMES, k=chance.randint(1, 30)))
        line = printable(name)
        assert line.isprintable() or not set(line) & set("\0\n\x1b\x7f\u202e")
        parts = name.split("/")
        if "\0" in name or not all(parts) or {".", ".."} & set(parts):
            return  # no path below a folder is called so
        hdf5.require_storable(name)
        with hdf5.writing(path, ("A", "B"), None) as writer:
            writer.put(name, np.zeros(2, np.float32))
        with h5py.File(path) as file:
            assert file[name].shape == (2,)
        with hdf5.reading(path) as found:
            assert list(found.names) == [name]

    return one


TARGETS: Mapping[str, Callable[[Path], Callable[[random.Random], None]]] = {
    "photo": photo_target,
    "model": model_target,
    "metadata": metadata_target,
    "config": config_target,
    "name": name_target,
    "detections": detections_target,
}


class Target:
    """A target with its files in a folder."""

    def __init__(self, name: str, folder: Path, seed: int = 0) -> None:
        self._name = name
        self._seed = seed
        self._one = TARGETS[name](folder)

    def try_input(self, number: int) -> bool:
        """Whether it was taken, and not refused. Raises what is neither."""
        refusal = None
        try:
            self._one(random.Random(f"{self._seed} {self._name} {number}"))
        except BirdsonnxError as error:
            refusal = error
        except Exception as error:
            raise AssertionError(f"{self._name}, seed {self._seed}, input {number}: {error!r}") from error
        assert refusal is None or str(refusal).strip(), f"{self._name}, seed {self._seed}, input {number}"
        return refusal is None


def main() -> None:
    """Run the targets in turn until the time is over."""
    words = sys.argv[1:]
    end = time.monotonic() + float(words[0] if words else 600)
    seed = time.time_ns()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        targets = [Target(name, Path(folder), seed) for name in words[1:] or TARGETS]
        tried = taken = 0
        while time.monotonic() < end:
            for target in targets:
                taken += sum(target.try_input(number) for number in range(tried, tried + 200))
            tried += 200
    print(f"{tried} inputs for each of {len(targets)} targets, seed {seed}: {taken} were taken")


if __name__ == "__main__":
    main()
