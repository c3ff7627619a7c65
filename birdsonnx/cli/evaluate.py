"""`birdsonnx evaluate`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdsonnx.cli.job import CANNOT, Job, agreed, running
from birdsonnx.cli.options import (
    CSVRaw,
    Debug,
    Engine,
    Json,
    Precision,
    SequenceGap,
    SpeciesFile,
    Tag,
    Threads,
    engine_of,
    precision_of,
    require_csv,
)

if TYPE_CHECKING:
    from birdsonnx.inference.evaluating.evaluation import Evaluation, Outcome, Request


Model = Annotated[
    Path | None,
    typer.Option(
        help="The .onnx for a folder (default: the newest checkpoint in model_checkpoints_save/, else in "
        "runs/)."
    ),
]
Labels = Annotated[
    Path | None, typer.Option(help="CSV of name,class for an .h5 whose names do not begin with a class.")
]
CSV = Annotated[
    Path | None,
    typer.Option(
        help="Write the table of the classes with the confusion matrix, and beside it FILE_mistakes.csv: "
        "the photos that were named wrongly.",
        metavar="FILE",
    ),
]
Others = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Also measure how well the model's output 'known' tells the photos of this folder, which "
        "show none of the classes.",
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Draw the confusion matrix as PNG.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Also say how many photos reach this probability, and how right these are (default: the "
        "model's own thresholds, where it has them; 0: none)."
    ),
]


def evaluate(
    target: Annotated[Path, typer.Argument(help="A folder of class folders, or an output_*.h5.")],
    model: Model = None,
    tag: Tag = None,
    labels: Labels = None,
    unknown: Others = None,
    csv: CSV = None,
    csv_raw: CSVRaw = False,
    plot: Plot = None,
    species: SpeciesFile = None,
    threshold: Threshold = None,
    sequence_gap: SequenceGap = None,
    threads: Threads = None,
    engine: Engine = "auto",
    precision: Precision = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare predictions with the right classes: accuracy, top-5, loss, per class, confusion matrix, and the
    photos that were named wrongly."""
    with running(json, debug, ranks="all") as job:
        from birdsonnx.inference.evaluating import evaluation, mistakes
        from birdsonnx.inference.judging import bursts
        from birdsonnx.inference.judging.criteria import Criteria

        agreed(lambda: require_csv(csv_raw, csv))
        agreed(lambda: bursts.require_gap(sequence_gap))
        kind, computed = agreed(lambda: (precision_of(precision), engine_of(engine)))
        if plot is not None:
            from birdsonnx.reporting import plots

            agreed(lambda: plots.require_drawable(plot))
        criteria = agreed(lambda: Criteria(species, threshold))
        written = [] if csv is None else [("--csv", csv), ("--csv", mistakes.beside(csv))]
        request = evaluation.Request(
            target,
            model,
            tag,
            labels,
            threads,
            kind,
            computed,
            criteria,
            sequence_gap,
            unknown,
            (*written, ("--plot", plot)),
        )
        outcome = evaluation.evaluate_target(request, job.ranks, job.console())
        if not job.speaks:
            return
        job.refuse(outcome.refused)
        job.result = outcome.as_json()
        if outcome.figures is None:
            job.code = CANNOT
            return
        _report(job, outcome, outcome.figures, Files(csv, csv_raw, plot, request))


@dataclass(frozen=True)
class Files:
    """What to write."""

    csv: Path | None
    csv_raw: bool
    plot: Path | None
    request: "Request"

    @property
    def command(self) -> str:
        """What is to be typed for the CSV."""
        asked = self.request
        options = {
            "--model": asked.model,
            "--tag": asked.tag,
            "--labels": asked.labels,
            "--species": asked.criteria.species,
            "--threshold": asked.criteria.threshold,
            "--sequence-gap": asked.sequence_gap_s,
        }
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        return shlex.join(["birdsonnx", "evaluate", str(asked.target), *given, "--csv", "table.csv"])


def _report(job: Job, outcome: "Outcome", found: "Evaluation", files: Files) -> None:
    """Write what was asked for, and print what people read."""
    from birdsonnx import artifacts
    from birdsonnx.inference.evaluating import mistakes
    from birdsonnx.reporting import predictions, tables

    written = []
    where_all = "--csv FILE lists them all"
    if files.csv is not None:
        tables.write_evaluation(found, files.csv, files.csv_raw)
        listed = mistakes.beside(files.csv)
        mistakes.write(found.wrong, listed, files.csv_raw)
        written += [files.csv, listed]
        where_all = f"all are in {listed}"
    if files.plot is not None:
        from birdsonnx.reporting import plots

        compared = " on ".join(filter(None, (outcome.model, str(files.request.target))))
        title = f"{compared}: accuracy {found.accuracy:.4f}"
        with job.console().progress(f"drawing {files.plot}"):
            plots.plot_confusion(found.confusion, found.classes, files.plot, title)
        written.append(files.plot)
    job.say(predictions.model_line(outcome.model, outcome.model_sha256))
    asked = files.request
    job.say(*predictions.sequence_lines(outcome.sequences, outcome.without_time, asked.sequence_gap_s))
    job.say(*tables.evaluation_lines(found), *tables.wrong_lines(found.wrong, where_all))
    if outcome.unknown is not None:
        job.say("", outcome.unknown.line())
    job.say(*(artifacts.written(path) for path in written))
    if found.wrong and files.csv is not None:
        job.say(f"next: look at the photos of {mistakes.beside(files.csv)}, the surest mistakes first")
    elif found.wrong:
        job.say(f"next: {files.command}")
