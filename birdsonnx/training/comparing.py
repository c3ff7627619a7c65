"""Backbones beside each other: a head on the cached features of each, trained as one config says; how right
it is, how fast it predicts here, how large its file is, and which of them no other beats in both."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from birdsonnx import artifacts
from birdsonnx.config import proposed
from birdsonnx.config import reading as configs
from birdsonnx.config.color_codes import GRAY, RGB
from birdsonnx.config.data import Data
from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import CenterCrop, Resize, color_steps
from birdsonnx.errors import ConfigError, ModelError, TrainingError
from birdsonnx.images.folders import LabelledFolder, quiet
from birdsonnx.inference import speed
from birdsonnx.inference.evaluating.reliability import wilson_interval
from birdsonnx.keras_io import architectures
from birdsonnx.keras_io import export as exporting
from birdsonnx.keras_io.architectures import weight_files
from birdsonnx.model import model_file
from birdsonnx.model.checkpoint_names import CHECKPOINTS_OF_RUN, COMPARISON_PREFIX, INT8_SUFFIX
from birdsonnx.runtime import threads
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import plan, run
from birdsonnx.training.audience import TrainingAudience
from birdsonnx.training.results import Outcome
from birdsonnx.training.starting import CONFIG, NETWORK, OUTFILE, next_folder

RESULT, TABLE = "compare.json", "compare.csv"
COLUMNS = (
    *("arch", "width", "height", "accuracy", "accuracy_low", "accuracy_high", "loss", "images_per_second"),
    *("bytes", "training_seconds", "on_front"),
)
"""Of the CSV."""

MOST_PHOTOS = 64
"""At most so many test photos, spread evenly, are predicted over and over to measure the speed."""

Listening = Callable[[Settings], AbstractContextManager[TrainingAudience]]
"""Opens what a training reports to."""


@dataclass(frozen=True)
class Request:
    """What to compare, on what."""

    config: Path
    archs: Sequence[str]
    weights: str = "imagenet"
    """`imagenet`, `none`, or a folder, pattern or file."""
    overrides: Sequence[str] = ()
    """`data.batch_size=32` assignments, as `train` takes them."""
    seconds: float = 5
    """For which each one's speed is measured."""


@dataclass(frozen=True)
class Compared:
    """One architecture."""

    arch: str
    input_size: tuple[int, int]
    """`(height, width)`."""
    weights: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    """In which the true accuracy lies with 95 % certainty."""
    loss: float
    """On the test photos."""
    images_per_second: float
    """Of `predict` from photo files, in one process on this machine."""
    streams: int
    """Cores that it used."""
    engine: str
    bytes: int
    training_seconds: float
    """All of it; the features included, unless they were in the cache."""
    model: Path
    on_front: bool = False
    """Whether no other one is at least as accurate and as fast, and better in one of the two."""


@dataclass(frozen=True)
class Comparison:
    """All of them, the most accurate first."""

    folder: Path
    config: Path
    test_photos: int
    rows: tuple[Compared, ...]
    refused: tuple[str, ...]
    """Which could not be trained, and why."""

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "config": self.config,
            "test_photos": self.test_photos,
            "compared": [asdict(row) for row in self.rows],
            "refused": list(self.refused),
        }


@dataclass(frozen=True)
class _Work:
    """What there is to do, the same on every rank."""

    settings: Settings
    """Of the config as it is."""
    text: str
    test: LabelledFolder
    weights: dict[str, str]
    """By Keras' spelling of the architectures."""
    replaced: tuple[str, ...]
    """Keys of the config in whose place each architecture comes."""


def compare(request: Request, ranks: Ranks, audience: Audience, listening: Listening) -> Comparison:
    """Train and measure one architecture after the other; every rank calls this. After each of them the
    result so far is in the folder's `compare.json`.

    Raises:
        BirdsonnxError: what concerns all of them. What only one cannot do is in `refused`.
    """
    work = ranks.first(lambda: _work(request))
    if work.replaced:
        audience.say(f"each network replaces {' and '.join(work.replaced)} of {request.config}")
    folder = ranks.first(lambda: next_folder(COMPARISON_PREFIX))
    rows: list[Compared] = []
    refused: list[str] = []
    try:
        for arch, weights in work.weights.items():
            place = folder / arch.lower()
            try:
                rows.append(_one(request, work, arch, place, ranks, audience, listening))
            except (ConfigError, ModelError, TrainingError) as error:
                if ranks.size > 1 and not error.agreed:
                    raise
                refused.append(f"{arch}, weights {weights}: {error.lines[0]}")
                ranks.first(lambda place=place: _remove_unless_trained(place))  # type: ignore[misc]
            ranks.first(lambda: _write(_comparison(request, work, folder, rows, refused)))
    except BaseException:  # an interruption too: what was trained stays, what was begun goes
        if ranks.is_first:
            for started in [*folder.glob("*/"), folder]:
                _remove_unless_trained(started)
        raise
    if not rows:
        ranks.first(lambda: _remove_unless_trained(folder))
    return _comparison(request, work, folder, rows, refused)


def _work(request: Request) -> _Work:
    """What can be refused before anything is done. Raises BirdsonnxError."""
    names = [architectures.named(name) for name in request.archs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--arch {twice} is there twice")
    text = configs.text_of(request.config)
    settings = configs.parse(text, str(request.config), request.overrides)
    if settings.data.input_path is None or settings.data.test_folder is None:
        lacking = "input_path" if settings.data.input_path is None else "test_input_path"
        raise ConfigError(
            f"{request.config}: neural_network.data.{lacking} is not there; networks are compared by "
            "training on photos and testing on others"
        )
    _, test = plan.folders(settings.data, quiet)
    assert test is not None
    weights = dict.fromkeys(names, request.weights)
    if request.weights not in ("imagenet", "none"):
        weights = {arch: str(file) for arch, file in weight_files.of_networks(request.weights, names).items()}
    own = {"layers": settings.layers, "checkpoints.load": settings.checkpoints.load}
    replaced = tuple(key for key, value in own.items() if value is not None)
    return _Work(settings, text, test, weights, replaced)


def _one(
    request: Request,
    work: _Work,
    arch: str,
    folder: Path,
    ranks: Ranks,
    audience: Audience,
    listening: Listening,
) -> Compared:
    """Make, train and measure one architecture. Raises BirdsonnxError."""
    with audience.progress(f"making {arch}"):
        settings = ranks.first(lambda: _made(request, work, arch, folder))
    with listening(settings) as listener:
        command = run.command_of(settings, (str(folder / CONFIG),))
        outcome = run.train(settings, ranks, listener, command=command)
    with audience.progress(f"measuring {arch}"):
        row = ranks.first(lambda: _measured(request, work, arch, outcome))
    audience.say(f"{arch}: accuracy {row.accuracy:.4f}, {row.images_per_second:.1f} images/s")
    return row


def _made(request: Request, work: _Work, arch: str, folder: Path) -> Settings:
    """Export the network and write the config that trains it, into its folder. Raises BirdsonnxError."""
    data, own = work.settings.data, work.settings.birdsonnx
    size, channels = _input_of(data)
    network = folder / NETWORK
    exporting.export(
        exporting.Request(
            output=network,
            arch=arch,
            weights=work.weights[arch],
            size=size,
            channels=channels,
            labels=Path(str(data.input_path)),
            tag=data.training_tag,
            seed=own.seed,
            compare=False,
        )
    )
    values: dict[str, Any] = {
        "outfile": folder / OUTFILE,
        "checkpoints.load": network,
        "checkpoints.save": folder / CHECKPOINTS_OF_RUN,
    }
    if work.settings.layers is not None:
        values["layers"] = None
    if data.test_output_path is not None:
        values["data.test_output_path"] = folder / "predictions"
    changes = [f"{key}={json.dumps(value, default=str)}" for key, value in values.items()]
    content = configs.assigned(work.text, str(request.config), [*request.overrides, *changes])
    text = proposed.text_of({"neural_network": content})
    artifacts.write_bytes(folder / CONFIG, text.encode())
    return configs.parse(text, str(folder / CONFIG))


def _input_of(data: Data) -> tuple[str | None, int]:
    """The size at which the config's transforms end, as `export --size` has it (None: they leave it to the
    network, which gets the size that it was made for), and the channels."""
    sizes = [step for step in data.transforms or () if isinstance(step, Resize | CenterCrop)]
    size = f"{sizes[-1].width}x{sizes[-1].height}" if sizes else None
    _, pixels = color_steps(data.transforms or (), GRAY if data.grayscale else RGB)
    return size, 1 if pixels == GRAY else 3


def _measured(request: Request, work: _Work, arch: str, outcome: Outcome) -> Compared:
    """The figures of a trained network; its speed is measured now, in this process alone."""
    last, photos = outcome.epochs[-1], work.test.photos
    assert last.test_loss is not None
    assert last.test_accuracy is not None
    model = next(each for each in reversed(outcome.checkpoints) if not each.name.endswith(INT8_SUFFIX))
    own = work.settings.birdsonnx
    found = speed.of_model(
        model,
        photos[:: -(-len(photos) // MOST_PHOTOS)],
        request.seconds,
        threads.share(Ranks(), own.threads).threads,
        own.engine,
        work.settings.data.grayscale,
    )
    height, width, _ = model_file.load(model).input_size
    return Compared(
        arch=arch,
        input_size=(height, width),
        weights=work.weights[arch],
        accuracy=last.test_accuracy,
        accuracy_interval=wilson_interval(round(last.test_accuracy * len(photos)), len(photos)),
        loss=last.test_loss,
        images_per_second=found.images_per_second,
        streams=found.streams,
        engine=found.engine,
        bytes=model.stat().st_size,
        training_seconds=outcome.seconds["total"],
        model=model,
    )


def _comparison(
    request: Request, work: _Work, folder: Path, rows: Sequence[Compared], refused: Sequence[str]
) -> Comparison:
    front = on_front([(row.accuracy, row.images_per_second) for row in rows])
    marked = [replace(row, on_front=is_on) for row, is_on in zip(rows, front, strict=True)]
    marked.sort(key=lambda row: (-row.accuracy, -row.images_per_second, row.arch))
    return Comparison(folder, request.config, len(work.test.photos), tuple(marked), tuple(refused))


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each point whether it is on the Pareto front: no other one is at least as large in both numbers and
    larger in one."""
    return [
        not any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points)
        for point in points
    ]


def _write(comparison: Comparison) -> None:
    artifacts.write_json(comparison.folder / RESULT, comparison.as_json())
    path = comparison.folder / TABLE
    with artifacts.replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for row in comparison.rows:
            low, high = row.accuracy_interval
            height, width = row.input_size
            figures = (row.accuracy, low, high, row.loss, row.images_per_second, row.bytes)
            rows.writerow([row.arch, width, height, *figures, row.training_seconds, int(row.on_front)])


def _remove_unless_trained(folder: Path) -> None:
    """Remove a folder without a checkpoint below it."""
    if not any(folder.rglob(f"{CHECKPOINTS_OF_RUN}/*.onnx")):
        shutil.rmtree(folder, ignore_errors=True)
