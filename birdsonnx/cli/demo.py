"""`birdsonnx demo`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Json


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for everything it writes; new or empty.")] = Path(
        "demo"
    ),
    weights: Annotated[
        str,
        typer.Option(
            help="Weights of ResNet50 without its head: a file, imagenet (download), or none (random)."
        ),
    ] = "none",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run every step on pictures it makes: offline, in two minutes."""
    with running(json, debug, ranks="one") as job:
        from birdsonnx import demo as demonstration

        job.result = demonstration.run(folder, weights, job.say)
