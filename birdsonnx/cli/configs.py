"""`birdsonnx configs`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Json


def configs(
    folder: Annotated[Path, typer.Argument(help="The folder to write them into.")] = Path("models"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the example configs of the tutorial, and their networks, to copy and to change."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx.config.shipped import copy_to

        written = copy_to(folder)
        job.result = {"files": [str(path) for path in written]}
        job.say(*(f"wrote {path}" for path in written))
