"""Options that several verbs have."""

from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads per rank (default: its share of the cores, at most OMP_NUM_THREADS)."),
]

Tag = Annotated[
    str | None,
    typer.Option(
        help="Name of the folders, anywhere below, that hold the class folders (as training_tag does)."
    ),
]
