"""`birdsonnx calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdsonnx.cli import next_steps
from birdsonnx.cli.job import CANNOT, Job, agreed, running
from birdsonnx.cli.options import Debug, Engine, Json, Tag, Threads, engine_of
from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.inference.calibrating.calibration import Calibration, Outcome

Validate = Annotated[
    Path, typer.Option(help="Class folders of photos that the model was not trained on: data/valid.")
]
Model = Annotated[Path | None, typer.Argument(help="A birdsonnx .onnx (default: the newest checkpoint).")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="The .onnx to write (default: MODEL as .calibrated.onnx)."),
]
Wanted = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Also fit for each class the probability from which on this share of its answers is right, such "
        "as 0.95.",
    ),
]
Known = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Also give the model the output 'known', which tells photos of other things: class folders of "
        "the photos that it was trained on, data/train.",
    ),
]
Keep = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of the validation photos that the threshold of --known keeps (default: 0.95).",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw as PNG how right the answers of each probability are, before and after."),
]


def calibrate(
    validate: Validate,
    model: Model = None,
    output: Output = None,
    tag: Tag = None,
    precision: Wanted = None,
    known: Known = None,
    keep: Keep = None,
    plot: Plot = None,
    threads: Threads = None,
    engine: Engine = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model's probabilities mean what they say: of the answers with 0.8, eight of ten are right.

    The model goes on naming the same class for every photo, only more or less surely."""
    with running(json, debug, ranks="all") as job:
        from birdsonnx.inference.calibrating import calibration as calibrating

        share = agreed(lambda: _share("--precision", precision))
        kept = agreed(lambda: _kept(keep, known))
        computed = agreed(lambda: engine_of(engine))
        if plot is not None:
            from birdsonnx.reporting import plots

            agreed(lambda: plots.require_drawable(plot))
        request = calibrating.Request(
            validate, model, output, tag, share, threads, computed, known, kept, plot
        )
        outcome = calibrating.calibrate(request, job.ranks, job.console())
        if not job.speaks:
            return
        job.refuse(outcome.refused)
        job.result = {"model": str(outcome.model), "refused": outcome.refused}
        if outcome.calibration is None:
            job.code = CANNOT
            return
        _report(job, outcome, outcome.calibration, plot, validate)


def _share(option: str, share: float | None) -> float | None:
    """Raises ConfigError where it is none."""
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"{option} {share:g}: give a share above 0, at most 1, such as 0.95")
    return share


def _kept(keep: float | None, known: Path | None) -> float | None:
    """Raises ConfigError where it is no share, or there is nothing that it is for."""
    if keep is not None and known is None:
        raise ConfigError("--keep is for the threshold of --known DIR, which is not given")
    return _share("--keep", keep)


def _report(job: Job, outcome: "Outcome", found: "Calibration", plot: Path | None, validate: Path) -> None:
    """Draw what was asked for, and print what people read."""
    from birdsonnx import artifacts
    from birdsonnx.reporting import calibration

    job.result = {**job.result, **calibration.as_json(outcome, found)}
    job.say(*calibration.lines(outcome, found))
    if plot is not None:
        from birdsonnx.reporting import plots

        with job.console().progress(f"drawing {plot}"):
            plots.plot_reliability(found, plot, f"{outcome.model.name} on {found.photos} photos")
        job.say(artifacts.written(plot))
    commands = next_steps.after_calibration(outcome.output, validate, outcome.known is not None)
    job.say(artifacts.written(outcome.output), *next_steps.as_lines(commands))
