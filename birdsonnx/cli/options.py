"""Options that several verbs have."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from birdsonnx.config.computing import (
    ENGINE_CHOICES,
    FEATURE_PRECISIONS,
    OUTPUT_LAYOUTS,
    PRECISIONS,
    EngineChoice,
    OutputLayout,
)
from birdsonnx.config.computing import Precision as PrecisionName
from birdsonnx.config.limits import MOST_THREADS
from birdsonnx.config.proposed import Choices
from birdsonnx.config.wording import nearest
from birdsonnx.errors import ConfigError

Name = TypeVar("Name", bound=str)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_THREADS,
        help="Threads per rank (default: its share of the cores, at most OMP_NUM_THREADS).",
    ),
]

Tag = Annotated[
    str | None,
    typer.Option(
        help="Name of the folders, anywhere below, that hold the class folders (as training_tag does)."
    ),
]

CSVRaw = Annotated[
    bool,
    typer.Option(
        "--csv-raw",
        help="Leave names in the CSV that begin with =, +, - or @ as they are; else an apostrophe comes "
        "first, since spreadsheets take them for formulas.",
    ),
]

SequenceGap = Annotated[
    float | None,
    typer.Option(
        "--sequence-gap",
        metavar="SECONDS",
        help="Photos of one folder and camera, each taken so many seconds after the one before (EXIF), or "
        "sooner, are named together, by the mean of their log-probabilities.",
    ),
]

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace what another command wrote; else the result gets the next number (the same command "
        "replaces its own).",
    ),
]

Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32 or int8: refuse a model of another kind; bf16: compute a float32 model in bf16, with "
        "OpenVINO on CPUs that have it (default: take any)."
    ),
]

Engine = Annotated[
    str,
    typer.Option(
        help="auto, onnxruntime or openvino: what computes (auto: the faster one for so many photos; "
        "`birdsonnx doctor` says which)."
    ),
]


SpeciesFile = Annotated[
    Path | None,
    typer.Option(
        "--species",
        metavar="FILE",
        help="Classes that can occur, one name a line, or a CSV whose first column they are: the others' "
        "probability is taken away.",
    ),
]


def engine_of(value: str) -> EngineChoice:
    """In any case. Raises ConfigError where `--engine` is none that there is."""
    return one_of("--engine", value, ENGINE_CHOICES)


def layout_of(value: str | None) -> OutputLayout | None:
    """In any case. Raises ConfigError where `--layout` is none that there is."""
    return None if value is None else one_of("--layout", value, OUTPUT_LAYOUTS)


def precision_of(value: str | None) -> PrecisionName | None:
    """In any case. Raises ConfigError where `--precision` is none that there is."""
    return None if value is None else one_of("--precision", value, PRECISIONS)


def one_of(option: str, value: str, names: Sequence[Name]) -> Name:
    """A value out of `names`, in any case. Raises ConfigError, which names the nearest one."""
    found = next((name for name in names if name == value.lower()), None)
    if found is None:
        raise ConfigError(f"{option} {value!r} is none of {', '.join(names)}{nearest(value, names)}")
    return found


def seconds_of(word: str) -> float:
    """What `--seconds` says. Raises ConfigError where that is no number above 0."""
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds {word!r}: give a number above 0")
    return seconds


def require_csv(raw: bool, csv: Path | None) -> None:
    """Raises ConfigError where `--csv-raw` has no CSV that it is for."""
    if raw and csv is None:
        raise ConfigError("--csv-raw is for the file of --csv, and there is none")


Arch = Annotated[
    str | None,
    typer.Option(help="Network of keras.applications to train a new head on (default: resnet50)."),
]

Network = Annotated[
    Path | None, typer.Option("--model", help="Your own network instead: .onnx, .h5 or .keras.")
]

StartWeights = Annotated[
    str | None,
    typer.Option(help="Of --arch: imagenet (download; the default), none (random), or a weights file."),
]

Epochs = Annotated[
    int | None, typer.Option(min=1, help="How often to train on all photos (default: by their number).")
]

TrainingBatch = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Photos per step, over all ranks (default: 64).")
]

LearningRate = Annotated[
    float | None,
    typer.Option(help="At the first epoch (default: 0.002; 0.0001 with --trainable)."),
]

Trainable = Annotated[
    list[str] | None,
    typer.Option(
        help="Layers to train, as names with * and ?: 'conv5_*,dense' (default: the head; of --model, its "
        "own choice)."
    ),
]

FeaturePrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Of the features of the layers that are not trained: fp32 (default), fp16, bf16 or int8.",
    ),
]


def choices_of(
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    trainable: list[str] | None,
    precision: str | None,
) -> Choices:
    """What the options of a training without a config say. Raises ConfigError."""
    globs = tuple(name.strip() for text in trainable or () for name in text.split(",") if name.strip())
    return Choices(
        epochs,
        batch_size,
        learning_rate,
        globs or None,
        None if precision is None else one_of("--precision", precision, FEATURE_PRECISIONS),
    )
