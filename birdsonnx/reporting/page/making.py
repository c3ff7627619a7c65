"""From what a user names to a report's file: evaluate where there are photos, gather, draw, write."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birdsonnx import artifacts
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.config.computing import EngineChoice
from birdsonnx.errors import ArtifactError, ConfigError, DataError
from birdsonnx.inference.evaluating import evaluation
from birdsonnx.inference.evaluating.answers import Answers
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.reporting.page import machine, predictions, rendering, review, source, thumbnails
from birdsonnx.reporting.page.evaluated import UNCERTAIN, WORST, Evaluated, evaluated
from birdsonnx.reporting.page.model_facts import ModelFacts, model_facts
from birdsonnx.reporting.page.photo_files import paths_of, require_some
from birdsonnx.reporting.page.source import Source
from birdsonnx.reporting.page.speed import Measured, measured_before, measured_now
from birdsonnx.reporting.page.training import Training, training_of
from birdsonnx.reporting.printable import printable
from birdsonnx.runtime import threads
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

LARGEST = 5_000_000
"""Bytes of a page."""

MOST_THUMBNAILS = 2500
"""Of a page to look through, unless somebody says otherwise. They are what takes time: 2 ms of a core for a
photo of 224 x 224 pixels, 50 for one of 12 megapixels."""


@dataclass(frozen=True)
class Request:
    """What a report is to be of, and what it may use."""

    run: Path
    """A run's folder, a config, a folder of checkpoints, a checkpoint, or predictions."""
    data: Path | None = None
    """A folder of class folders to evaluate on; None: the config's test photos, where they are."""
    tag: str | None = None
    photos: Path | None = None
    """The folder that predictions are of: their photos are shown."""
    labels: Path | None = None
    """CSV of name,class for predictions."""
    thumbnails: int = MOST_THUMBNAILS
    """Of a page to look through, at most."""
    benchmark: Path | None = None
    """What `birdsonnx benchmark --json` printed about the model."""
    output: Path | None = None
    """None: beside what it is of."""
    threads: int | None = None
    engine: EngineChoice = "auto"


@dataclass(frozen=True)
class Report:
    """The file that was written, and the figures in it."""

    path: Path
    bytes: int
    kind: str
    """evaluation, training or review."""
    figures: dict[str, Any]
    said: tuple[str, ...]
    """The same for people."""

    def as_json(self) -> dict[str, Any]:
        return {"output": str(self.path), "bytes": self.bytes, "kind": self.kind, **self.figures}


@dataclass(frozen=True)
class _Job:
    """A request, with all settled that can be refused before any work."""

    request: Request
    source: Source
    output: Path
    model: ModelFacts | None
    measured: Measured | None
    """By a benchmark that was given."""


def make(request: Request, ranks: Ranks, audience: Audience) -> tuple[Report | None, list[str]]:
    """Write a report; every rank calls this. Complete on rank 0: the report (None where every photo was
    refused) and the refusals.

    Raises:
        BirdsonnxError: what cannot be a report, a model or photos that cannot be used, a file that is not
            ours in its place.
    """
    job = ranks.first(lambda: _settled(request))
    found = job.source
    if found.predictions is not None:
        return ranks.first(lambda: _of_predictions(job, audience))
    data, tag = request.data, request.tag
    if data is None:
        data, tag = found.test_folder, tag or found.test_tag
    if data is None or found.model is None:
        return ranks.first(lambda: _of_training(job)), []
    answers = Answers()
    asked = evaluation.Request(data, found.model, tag, threads=request.threads, engine=request.engine)
    outcome = evaluation.evaluate_target(asked, ranks, audience, answers)

    def written() -> Report | None:
        if outcome.figures is None:
            return None
        return _of_evaluation(job, data, data, outcome.figures, answers, outcome.refused, audience)

    return ranks.first(written), outcome.refused


def _settled(request: Request) -> _Job:
    rendering.require_templates()
    found = source.find(request.run)
    is_predictions = found.predictions is not None
    for option, given, fits in (
        ("--photos", request.photos, is_predictions),
        ("--labels", request.labels, is_predictions),
        ("--data", request.data, not is_predictions),
        ("--tag", request.tag, not is_predictions),
        ("--benchmark", request.benchmark, not is_predictions),
        ("--engine", None if request.engine == "auto" else request.engine, not is_predictions),
    ):
        if given is not None and not fits:
            what = "a run or a model" if is_predictions else "an output_*.h5"
            raise ConfigError(f"{option} is for {what}, and {request.run} is none")
    if found.model is None and (request.data is not None or request.benchmark is not None):
        raise DataError(f"{request.run}: this training kept no checkpoint; leave out --data and --benchmark")
    if request.photos is not None and not request.photos.is_dir():
        raise DataError(f"{request.photos}: there is no such folder of photos")
    output = request.output or found.output
    if output.exists() and not _is_ours(output):
        raise ArtifactError(
            f"{output} is there already, and no report of birdsonnx; name another file with -o"
        )
    model = None if found.model is None else model_facts(found.model)
    measured = None
    if request.benchmark is not None and model is not None:
        measured = measured_before(request.benchmark, model.sha256)
    return _Job(request, found, output, model, measured)


def _is_ours(path: Path) -> bool:
    try:
        with open(path, "rb", opener=opener) as file:
            return rendering.is_ours(file.read(4096))
    except OSError:  # a folder, or no permission
        return False


def _of_training(job: _Job) -> Report:
    """A page of a training whose test photos are not here."""
    training = _training(job)
    if training is None:
        raise DataError(
            f"{job.source.where}: this model was not trained here, and no photos are given; give --data DIR, "
            "a folder of class folders"
        )
    best = training.best
    figures = {"epochs": len(training.epochs), "best": None if best is None else vars(best)}
    said = [
        "only the figures of the training: no config says where test photos are, or they are gone; "
        "--data DIR evaluates on those of a folder"
    ]
    if best is not None:
        said.append(f"best test accuracy {best.test_accuracy:.4f}, epoch {best.epoch}")
    return _written(job, "training", figures, said, _run_page(job, training, None, job.measured, ()))


def _of_evaluation(
    job: _Job,
    where: Path,
    photos: Path | None,
    figures: Evaluation,
    answers: Answers,
    refused: Sequence[str],
    audience: Audience,
) -> Report:
    names = list({each.name: None for each in (*answers.worst(WORST), *answers.least_certain(UNCERTAIN))})
    made: list[str] = []
    if photos is not None:
        paths, size = paths_of(names, photos), thumbnails.LARGE
        made = thumbnails.thumbnails(paths, len(paths), LARGEST // 4, size, _threads(job), audience)
    content = evaluated(figures, answers, printable(str(where)), dict(zip(names, made, strict=False)))
    measured = job.measured
    if measured is None and figures.seconds is not None and figures.engine is not None:
        measured = measured_now(figures.photos, figures.seconds, figures.engine)
    page = _run_page(job, _training(job), content, measured, refused)
    low, high = content.interval
    numbers = {
        "photos": content.photos,
        "accuracy": content.accuracy,
        "interval": [low, high],
        "top5": content.top5,
        "loss": content.loss,
        "macro_accuracy": content.macro_accuracy,
        "macro_f1": content.macro_f1,
        "calibration_error": content.reliability.expected_error,
        "images_per_second": None if measured is None else measured.images_per_second,
        "refused": list(refused),
    }
    said = [
        f"accuracy {content.accuracy:.4f} ({low:.4f} to {high:.4f})   top-5 {content.top5:.4f}   "
        f"calibration error {content.reliability.expected_error:.4f}   photos {content.photos:,}"
    ]
    return _written(job, "evaluation", numbers, said, page)


def _of_predictions(job: _Job, audience: Audience) -> tuple[Report | None, list[str]]:
    """A page of an evaluation where the right classes are known, else one to look through."""
    path, photos = job.source.predictions, job.request.photos
    assert path is not None
    found = predictions.read(path, job.request.labels, audience)
    if not len(found.answers):
        return None, found.refused
    note = "no thumbnails: --photos DIR, the folder that was predicted, shows them"
    notes = [note] if photos is None else require_some(found.answers.names, photos)
    if found.figures is not None:
        report = _of_evaluation(job, path, photos, found.figures, found.answers, found.refused, audience)
    else:
        report = _to_look_through(job, path, found, audience)
    return replace(report, said=(*notes, *report.said)), found.refused


def _to_look_through(job: _Job, path: Path, found: predictions.Read, audience: Audience) -> Report:
    photos, answers = job.request.photos, found.answers
    order = review.listed(answers)

    def page(made: Sequence[str]) -> tuple[review.Review, bytes]:
        content = review.review(answers, found.classes, printable(str(path)), order, made)
        return content, rendering.rendered(
            "review.html",
            "review.js",
            title=printable(f"{path.stem}: {content.photos:,} photos to look through"),
            made=_today(),
            review=content,
            refused=[printable(reason) for reason in found.refused],
            shows_photos=photos is not None,
            machine=machine.facts(),
        )

    content, written = page(())
    if photos is not None:
        left = LARGEST - len(written) - review.AROUND
        paths = paths_of([answers.names[index] for index in order[: job.request.thumbnails]], photos)
        size = thumbnails.SMALL
        content, written = page(thumbnails.thumbnails(paths, len(paths), left, size, _threads(job), audience))
    numbers = {
        "photos": content.photos,
        "listed": content.listed,
        "thumbnails": content.thumbnails,
        "classes": {each.name: each.photos for each in content.classes},
        "refused": found.refused,
    }
    said = [
        f"right classes are not known ({found.unlabelled}): a page to look through",
        f"{content.photos:,} photos of {len(content.classes):,} classes, {content.thumbnails:,} thumbnails",
    ]
    return _written(job, "review", numbers, said, written)


def _run_page(
    job: _Job,
    training: Training | None,
    content: Evaluated | None,
    measured: Measured | None,
    refused: Sequence[str],
) -> bytes:
    return rendering.rendered(
        "report.html",
        "report.js",
        title=printable(job.source.where.name or str(job.source.where)),
        made=_today(),
        training=training,
        model=job.model,
        evaluated=content,
        measured=measured,
        refused=[printable(reason) for reason in refused],
        machine=machine.facts(),
    )


def _training(job: _Job) -> Training | None:
    return training_of(job.source, None if job.model is None else job.model.metadata)


def _threads(job: _Job) -> int:
    return threads.share(Ranks(), job.request.threads).threads


def _today() -> str:
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _written(job: _Job, kind: str, figures: dict[str, Any], said: Sequence[str], page: bytes) -> Report:
    artifacts.write_bytes(job.output, page)
    return Report(job.output, len(page), kind, figures, tuple(said))
