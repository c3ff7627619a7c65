"""`birdsonnx sample`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Json, Tag


def sample(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of class folders.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A folder that is new or empty.")],
    per_class: Annotated[int, typer.Option(min=1, help="Photos to take of each class.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed chooses other photos.")] = 0,
    tag: Tag = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy random photos of every class into one folder; a copy is called class name + file name."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx.images import sampling

        taken = sampling.sample(source, destination, per_class, seed, tag, job.console())
        job.result = {
            "destination": str(destination),
            "photos": taken.names,
            "in_class_order": taken.in_class_order,
        }
        job.say(f"copied {len(taken.names)} photos to {destination}")
        if not taken.in_class_order:
            job.say(
                "note: name order is not class order here (one class name begins another); compare with "
                "'birdsonnx evaluate', not by position"
            )
        job.say(f"next: birdsonnx predict {shlex.quote(str(destination))}")
