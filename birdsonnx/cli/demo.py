"""`birdsonnx demo`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Json


def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes; must be new or empty.")] = Path(
        "demo"
    ),
    weights: Annotated[
        str, typer.Option(help="ResNet50 backbone weights: a file, imagenet (download), or none (random).")
    ] = "none",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole road in about two minutes on images it makes itself, offline."""
    with running(json, debug, ranks="one") as job:
        from birdsonnx import demo as demonstration

        job.result = demonstration.run(folder, weights, job.say)
