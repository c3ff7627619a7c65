"""`birdsonnx info`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Json


def info(
    model: Annotated[Path, typer.Argument(help="A birdsonnx .onnx.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model holds: classes, preprocessing, history."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx.model import model_file
        from birdsonnx.reporting import tables

        job.result = tables.model_info(model_file.load(model), model)
        job.say(*tables.info_lines(job.result))
