"""Options that several verbs have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from birdsonnx.config.limits import MOST_THREADS
from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.inference.requests import Precision as PrecisionName
    from birdsonnx.runtime.engine import EngineChoice

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


def engine_of(value: str) -> "EngineChoice":
    """In any case. Raises ConfigError where `--engine` is none that there is."""
    if value.lower() not in ("auto", "onnxruntime", "openvino"):
        raise ConfigError(f"--engine {value!r} is none of auto, onnxruntime, openvino")
    return cast("EngineChoice", value.lower())


def precision_of(value: str | None) -> "PrecisionName | None":
    """In any case. Raises ConfigError where `--precision` is none that there is."""
    if value is None:
        return None
    if value.lower() not in ("fp32", "bf16", "int8"):
        raise ConfigError(f"--precision {value!r} is none of fp32, bf16, int8")
    return cast("PrecisionName", value.lower())


def require_csv(raw: bool, csv: Path | None) -> None:
    """Raises ConfigError where `--csv-raw` has no CSV that it is for."""
    if raw and csv is None:
        raise ConfigError("--csv-raw is for the file of --csv, and there is none")
