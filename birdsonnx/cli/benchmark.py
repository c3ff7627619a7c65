"""`birdsonnx benchmark`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.options import Debug, Engine, Json, Precision, engine_of, precision_of, seconds_of
from birdsonnx.errors import ConfigError

LARGEST_BATCH = 1024
"""Photos in a run: a larger number is a typing error; 1024 take 10 GB with ResNet50."""


Data = Annotated[
    str | None,
    typer.Option(
        metavar="PHOTOS", help="Photo, folder or glob pattern to predict (default: JPEGs made for it)."
    ),
]
Cores = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N", help="Cores to use; give it again for each number (default: 1, 2, 4 ... up to all)."
    ),
]


def benchmark(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="The .onnx (default: the newest checkpoint in model_checkpoints_save/, else in runs/)."
        ),
    ] = None,
    data: Data = None,
    seconds: Annotated[
        str, typer.Option(metavar="SECONDS", help="Time for all measurements together.")
    ] = "60",
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,N,...", help="Photos per run, with pixels in memory.")
    ] = "1,4,8",
    threads: Cores = None,
    engine: Engine = "auto",
    precision: Precision = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the JSON here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw speed and latency by batch as PNG.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on this machine: start, speed, latency, memory."""
    with running(json, debug, ranks="one") as job:
        from birdsonnx import artifacts, doctor
        from birdsonnx.inference import benchmark as measuring
        from birdsonnx.reporting import plots, tables
        from birdsonnx.runtime.threads import available_cores

        cores = len(available_cores())
        request = measuring.Request(
            model,
            data,
            seconds_of(seconds),
            _whole_numbers("--batch-sizes", batch_sizes.split(","), LARGEST_BATCH),
            _whole_numbers("--threads", threads, cores, " (the cores of this process)") if threads else None,
            precision_of(precision),
            engine_of(engine),
        )
        if plot is not None:
            plots.require_drawable(plot)
        found = measuring.run(request, job.console())
        environment = doctor.examine()  # only now: it loads what would show in the memory
        job.result = {**found.as_json(), "environment": environment}
        job.say(*tables.benchmark_lines(found))
        job.refuse(found.refused)
        if output is not None:
            artifacts.write_json(output, job.result)
        if plot is not None:
            plots.plot_benchmark(found, plot, f"{found.model}, {environment['cpu']}, {cores} cores")
        job.say(*(artifacts.written(path) for path in (output, plot) if path))
        job.say(f"next: birdsonnx predict PHOTOS --model {shlex.quote(found.model)}")


def _whole_numbers(option: str, words: Sequence[str], most: int, why: str = "") -> tuple[int, ...]:
    for word in words:
        if not word.strip().isdecimal() or not 1 <= int(word) <= most:
            raise ConfigError(f"{option} {word!r}: give whole numbers from 1 to {most}{why}")
    return tuple(int(word) for word in words)
