"""`birdsonnx report`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.artifacts import written
from birdsonnx.cli.job import CANNOT, agreed, running
from birdsonnx.cli.options import Debug, Engine, Json, Tag, Threads, engine_of

Thumbnails = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Most photos that are shown of an output_*.h5 to look through, the least certain ones "
        "(default: 2500; as many as fit a page of 5 MB).",
    ),
]
Benchmark = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Show the speed that `birdsonnx benchmark --json` printed, not that of this pass.",
    ),
]


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run's folder, the config of a training, a folder of checkpoints, a checkpoint, or an "
            "output_*.h5."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of class folders to evaluate on (default: the config's test photos, if they are "
            "there)."
        ),
    ] = None,
    tag: Tag = None,
    photos: Annotated[
        Path | None,
        typer.Option(help="For an output_*.h5: the folder that was predicted, to show its photos."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="For an .h5 whose names do not begin with a class: CSV of name,class."),
    ] = None,
    thumbnails: Thumbnails = None,
    benchmark: Benchmark = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page (default: RUN/report.html, or RUN with .html)."),
    ] = None,
    threads: Threads = None,
    engine: Engine = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one HTML file about a training and how right it is, or to look through predictions."""
    with running(json, debug, ranks="all") as job:
        from birdsonnx.reporting.page import making

        computed = agreed(lambda: engine_of(engine))
        most = making.MOST_THUMBNAILS if thumbnails is None else thumbnails
        request = making.Request(run, data, tag, photos, labels, most, benchmark, output, threads, computed)
        made, refused = making.make(request, job.ranks, job.console())
        if not job.speaks:
            return
        job.refuse(refused)
        if made is None:
            job.result = {"refused": refused}
            job.code = CANNOT
            return
        job.result = made.as_json()
        job.say(*made.said, f"{written(made.path)} ({made.bytes / 1e6:.1f} MB); open it in a browser")
