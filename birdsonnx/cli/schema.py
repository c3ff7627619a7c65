"""`birdsonnx schema`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Json


def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write (default: print it).")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print a JSON Schema of the config, with which editors complete and check it."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx import artifacts
        from birdsonnx.config.schema import config_schema

        if output is None:
            job.result = config_schema()
            job.say(*artifacts.json_text(job.result, indent=2).splitlines())
        else:
            artifacts.write_json(output, config_schema())
            job.result["output"] = str(output)
            job.say(artifacts.written(output))
