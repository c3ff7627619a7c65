"""A training that was given no config: which folders, which network, which run; and the config that these
amount to, which alone is trained then."""

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from birdsonnx import artifacts
from birdsonnx.artifacts import naming
from birdsonnx.config import proposed
from birdsonnx.config import reading as configs
from birdsonnx.config.data import Data
from birdsonnx.config.proposed import Choices, Places, Sets
from birdsonnx.errors import ConfigError, DataError, ModelError
from birdsonnx.images import sets as photo_sets
from birdsonnx.images.folders import LabelledFolder, quiet
from birdsonnx.keras_io import architectures
from birdsonnx.keras_io import export as exporting
from birdsonnx.model.checkpoint_names import (
    CHECKPOINTS,
    CHECKPOINTS_OF_RUN,
    RUN_PREFIX,
    RUNS,
    numbered_runs,
)
from birdsonnx.training import plan

Say = Callable[[str], None]

CONFIG, NETWORK, OUTFILE = "config.json", "network.onnx", "out_classifier.txt"
"""In a run's folder."""


@dataclass(frozen=True)
class Request:
    """What to train, on what; None where nothing was said."""

    data: Path
    arch: str | None = None
    model: Path | None = None
    weights: str | None = None
    choices: Choices = field(default_factory=Choices)
    overrides: Sequence[str] = ()
    """`data.batch_size=32` assignments, which the config then holds."""


@dataclass(frozen=True)
class _Found:
    """The photos of a request."""

    sets: Sets
    train: LabelledFolder


def new_run(request: Request, say: Say) -> Path:
    """Make the next folder in `RUNS`, with the network and the config in it; returns the config's path. `say`
    takes lines about them.

    Raises:
        BirdsonnxError: what cannot be trained, or cannot be written; then no folder is left.
    """
    found = _find(request, say)
    with _next_folder() as folder:
        network = request.model or folder / NETWORK
        places = Places(network, folder / OUTFILE, folder / CHECKPOINTS_OF_RUN)
        text = _config(request, found, places, say)
        if request.model is None:
            _export(request, found.sets, network, say)
        path = folder / CONFIG
        artifacts.write_bytes(path, text.encode())
    say(f"config {path}:")
    for line in text.splitlines():
        say(line)
    return path


def config_to_edit(request: Request, path: Path, say: Say) -> list[str]:
    """Write only the config, for the folders that the tutorial's configs have; returns the commands that
    come next.

    Raises:
        BirdsonnxError: what cannot be trained, or a file that is there already.
    """
    found = _find(request, say)
    network = request.model or exporting.Request(arch=request.arch).file
    if path.exists():
        raise ConfigError(f"{path}: this file is there already; remove it, or name another with -o")
    text = _config(request, found, Places(network, Path(OUTFILE), CHECKPOINTS), say)
    artifacts.write_bytes(path, text.encode())
    for line in text.splitlines():
        say(line)
    export = [] if network.exists() else [_export_command(request, found.sets)]
    return [*export, f"birdsonnx train {shlex.quote(str(path))}"]


def _find(request: Request, say: Say) -> _Found:
    """The photos, and whether the options go together. Raises BirdsonnxError."""
    if request.model is not None:
        for option, value in (("--arch", request.arch), ("--weights", request.weights)):
            if value is not None:
                raise ConfigError(f"{option} {value} is for a new network; --model {request.model} is one")
        if not request.model.is_file():
            raise ConfigError(f"--model {request.model}: there is no such file")
    elif request.arch is not None:
        architectures.named(request.arch)
    sets = photo_sets.find(request.data)
    train, test = plan.folders(Data.model_validate(sets.as_json()), quiet)
    if test is None:
        say(f"{request.data}: no folder valid (nor val, test …): nothing will be evaluated after the epochs")
    return _Found(sets, train)


def _config(request: Request, found: _Found, places: Places, say: Say) -> str:
    """The config's text. Raises ConfigError where it is none that can be trained."""
    photos = len(found.train.photos)
    config = proposed.proposed(found.sets, photos, request.choices, places)
    for override in request.overrides:
        configs.assign(config["neural_network"], override)
    text = proposed.text_of(config)
    configs.parse(text, f"--data {request.data}")
    say(proposed.reason(photos, config, request.choices))
    return text


@contextlib.contextmanager
def unless_refused(config: Path) -> Iterator[None]:
    """Around the training of a new run, of which nothing is left where it is refused before a checkpoint is
    there. What stops otherwise (a signal, a loss that is not finite) stays, to look at or to go on with."""
    try:
        yield
    except (ConfigError, DataError, ModelError):
        folder = config.parent
        if not any((folder / CHECKPOINTS_OF_RUN).glob("*.onnx")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def next_folder(prefix: str = RUN_PREFIX) -> Path:
    """A new folder in `RUNS` with the next free number. Raises ArtifactError."""
    with naming(RUNS):
        RUNS.mkdir(exist_ok=True)
        number = max(numbered_runs(prefix), default=0)
        while True:  # another run may take the number in the meantime
            number += 1
            folder = RUNS / f"{prefix}{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder


@contextlib.contextmanager
def _next_folder() -> Iterator[Path]:
    """`next_folder`, which goes where the block fails. Raises ArtifactError."""
    folder = next_folder()
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _export(request: Request, sets: Sets, file: Path, say: Say) -> None:
    exported = exporting.export(
        exporting.Request(
            output=file,
            arch=request.arch,
            weights=request.weights or "imagenet",
            labels=sets.input_path,
            tag=sets.training_tag,
            compare=False,
        )
    )
    for note in exported.conversion.notes:
        say(note)
    say(f"network {file} ({request.arch or exporting.DEFAULT_ARCH}, weights {request.weights or 'imagenet'})")


def _export_command(request: Request, sets: Sets) -> str:
    words: list[Any] = ["birdsonnx", "export"]
    words += ["--arch", request.arch] if request.arch else []
    words += ["--weights", request.weights] if request.weights else []
    words += ["--labels", sets.input_path, *(["--tag", sets.training_tag] if sets.training_tag else [])]
    return shlex.join(map(str, words))
