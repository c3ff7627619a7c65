"""`birdsonnx evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import CANNOT, agreed, running
from birdsonnx.cli.options import (
    CSVRaw,
    Debug,
    Engine,
    Json,
    Precision,
    Tag,
    Threads,
    engine_of,
    precision_of,
    require_csv,
)


def evaluate(
    target: Annotated[Path, typer.Argument(help="A folder of class folders, or an output_*.h5.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="The .onnx for a folder (default: the newest checkpoint in model_checkpoints_save/)."
        ),
    ] = None,
    tag: Tag = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of name,class for an .h5 whose names do not begin with a class.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table of the classes and the confusion matrix.")
    ] = None,
    csv_raw: CSVRaw = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the confusion matrix as PNG.")] = None,
    threads: Threads = None,
    engine: Engine = "auto",
    precision: Precision = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare predictions with the right classes: accuracy, top-5, loss, per class, confusion matrix."""
    with running(json, debug, ranks="all") as job:
        from birdsonnx.inference import evaluation
        from birdsonnx.reporting import tables

        agreed(lambda: require_csv(csv_raw, csv))
        kind, computed = agreed(lambda: (precision_of(precision), engine_of(engine)))
        request = evaluation.Request(target, model, tag, labels, threads, kind, computed)
        found, refused = evaluation.evaluate_target(request, job.ranks, job.console())
        if not job.speaks:
            return
        job.refuse(refused)
        if found is None:
            job.result = {"refused": refused}
            job.code = CANNOT
            return
        job.result = {**found.as_json(), "classes": list(found.classes), "refused": refused}
        if csv is not None:
            tables.write_evaluation(found, csv, csv_raw)
        if plot is not None:
            from birdsonnx.reporting import plots

            title = f"{target}: accuracy {found.accuracy:.4f}"
            plots.plot_confusion(found.confusion, found.classes, plot, title)
        job.say(*tables.evaluation_lines(found), *(f"wrote {path}" for path in (csv, plot) if path))
