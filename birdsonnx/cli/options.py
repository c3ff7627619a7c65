"""Options that several verbs have."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.config.limits import MOST_THREADS
from birdsonnx.errors import ConfigError

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


def require_csv(raw: bool, csv: Path | None) -> None:
    """Raises ConfigError where `--csv-raw` has no CSV that it is for."""
    if raw and csv is None:
        raise ConfigError("--csv-raw is for the file of --csv, and there is none")
