"""`birdsonnx predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birdsonnx.cli.job import SOME_REFUSED, Job, agreed, printable, running
from birdsonnx.cli.options import Debug, Json, Threads
from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.inference.requests import Request


def predict(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...", help="Photos, folders, glob patterns.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The .onnx (default: the newest checkpoint under model_checkpoints_save/)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Take model, input, output and transforms from a JSON config.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for output_1.h5 (default predictions/).")
    ] = None,
    threads: Threads = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Photos per run of a thread (default: as tuned; else 4, int8 up to 8); changes speed only.",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or int8: what the model must be (default: whatever it is).")
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="First measure how this machine runs the model fastest; remembered."),
    ] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show per photo.")] = 1,
    csv: Annotated[Path | None, typer.Option(help="Also write name, class, probability as CSV.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Name photos; keep the log-probabilities in predictions/output_1.h5."""
    with running(json, debug) as job:
        from birdsonnx.config import reading as configs
        from birdsonnx.inference.requests import Request, request_of

        ranks = job.join_ranks()
        options: dict[str, Any] = {
            "inputs": inputs,
            "model": model,
            "output": output,
            "threads": threads,
            "per_run": batch_size,
            "precision": agreed(lambda: _precision(precision)),
            "tune": tune,
            "top_k": top_k,
            "csv": csv,
        }
        if config is not None:
            settings = ranks.first(lambda: configs.read(config))
            request = agreed(lambda: request_of(settings, **options))
        else:
            given = {name: value for name, value in options.items() if value is not None}
            request = Request(**{"inputs": [], "output": Path("predictions"), **given})
        run_prediction(job, request)


def run_prediction(job: Job, request: "Request") -> None:
    from birdsonnx.inference import prediction
    from birdsonnx.inference import run as requests

    assert job.ranks is not None
    summary, where = requests.predict(request, job.ranks, job.console())
    if not job.speaks:
        return
    total = summary.photos + len(summary.refused)
    job.result = {
        "model": where,
        "photos": summary.photos,
        "refused": summary.refused,
        "seconds": summary.seconds,
        "images_per_second": summary.photos / summary.seconds,
        "output": summary.output,
        "csv": summary.csv,
        "predictions": summary.shown if total <= prediction.SHOWN else None,
        "counts": summary.counts,
    }
    if total <= prediction.SHOWN:
        width = max((len(entry["name"]) for entry in summary.shown), default=0)
        for entry in summary.shown:
            top = "   ".join(f"{name} {probability:.4f}" for name, probability in entry["top"])
            job.say(printable(f"{entry['name']:<{width}}  {top}"))
    else:
        for name, count in sorted(summary.counts.items(), key=lambda item: (-item[1], item[0]))[:20]:
            job.say(f"{count:>7} x {name}")
        if len(summary.counts) > 20:
            job.say(f"{'':>7}   and {len(summary.counts) - 20} more classes")
    for refusal in summary.refused:
        print(f"birdsonnx: refused: {printable(refusal)}", file=sys.stderr)
    where_to = f" -> {summary.output}" if summary.output else ""
    job.say(
        f"{summary.photos} photos in {summary.seconds:.2f} s "
        f"({summary.photos / summary.seconds:.1f} images/s){where_to}"
        + (f", {len(summary.refused)} refused" if summary.refused else "")
    )
    if summary.refused:
        job.code = SOME_REFUSED


def _precision(value: str | None) -> str | None:
    if value not in (None, "fp32", "int8"):
        raise ConfigError(f"--precision {value!r} is neither fp32 nor int8")
    return value
