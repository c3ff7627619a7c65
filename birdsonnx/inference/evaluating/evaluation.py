"""How right predictions are: accuracy, top-5, loss, per class and as means over the classes, how sure these
figures are, which class is taken for which, and which photos were named wrongly."""

import contextlib
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.artifacts import apart
from birdsonnx.config.computing import EngineChoice, Precision
from birdsonnx.errors import ConfigError
from birdsonnx.images.folders import fitted, read_class_folders
from birdsonnx.images.photo_list import Photo, paths_of
from birdsonnx.inference import requests
from birdsonnx.inference.evaluating import unknown
from birdsonnx.inference.evaluating.answers import Answers
from birdsonnx.inference.evaluating.confusion import MOST_IN_MATRIX, Confusion
from birdsonnx.inference.evaluating.labels import labels_of
from birdsonnx.inference.evaluating.mistakes import Mistakes
from birdsonnx.inference.evaluating.reliability import Sums, wilson_interval
from birdsonnx.inference.evaluating.unknown import Unknown
from birdsonnx.inference.judging.bursts import sequences_of, sharing
from birdsonnx.inference.judging.coverage import Judging, Sure
from birdsonnx.inference.judging.criteria import Criteria, ReadCriteria
from birdsonnx.inference.judging.verdicts import Judge
from birdsonnx.inference.keeping import hdf5
from birdsonnx.inference.keeping.hdf5 import Predictions
from birdsonnx.inference.naming import counted, name_photos
from birdsonnx.inference.opening import choose_model, open_model
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

Answer = tuple[str, npt.NDArray[np.float32], int]
"""A photo's name, its log-probabilities, float32 `(classes,)`, and the index of its right class."""


@dataclass(frozen=True)
class Request:
    """What to evaluate, and where the right classes come from."""

    target: Path
    """A folder of class folders, or a predictions file."""
    model: Path | None = None
    """For a folder; None: the newest checkpoint."""
    tag: str | None = None
    """Name of the folders in a folder that hold the class folders; None: it does."""
    labels: Path | None = None
    """CSV of name,class for a predictions file; None: its own names say it."""
    threads: int | None = None
    """Per rank; None: its share of the cores."""
    precision: Precision | None = None
    """What the model must be, as in a prediction."""
    engine: EngineChoice = "auto"
    criteria: Criteria = field(default_factory=Criteria)
    """Species that can occur, and thresholds."""
    sequence_gap_s: float | None = None
    """As in a prediction of a folder."""
    unknown: Path | None = None
    """A folder of photos that show none of the classes; None: only the target is looked at."""
    written: Sequence[apart.Named] = ()
    """Files that are to be written of it, which must be none that is read."""


@dataclass(frozen=True)
class Evaluation:
    """Figures over a labelled set of photos."""

    classes: tuple[str, ...]
    confusion: Confusion
    top5_hits: int
    loss: float
    """Mean negative log-likelihood of the right class."""
    wrong: Mistakes
    """The photos that were named wrongly."""
    calibration_error: float
    """The expected one: by how much probabilities miss the share of right answers (`inference.reliability`).
    """
    engine: str | None = None
    """What computed the answers, with its version; None where they come from a file."""
    seconds: float | None = None
    """Of the pass over the photos, decoding included; None where the answers come from a file."""
    sure: Sure | None = None
    """The photos whose class reaches its threshold, where there are thresholds."""

    @property
    def photos(self) -> int:
        return self.confusion.photos

    @property
    def accuracy(self) -> float:
        return float(self.confusion.right.sum() / self.photos)

    @property
    def top5(self) -> float:
        return self.top5_hits / self.photos

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Where the true accuracy lies with 95 % certainty."""
        return wilson_interval(int(self.confusion.right.sum()), self.photos)

    @property
    def macro_accuracy(self) -> float:
        """The mean recall of the classes that have photos, each counting alike (scikit-learn's
        `balanced_accuracy_score`)."""
        shown = self.confusion.shown
        return float((self.confusion.right[shown > 0] / shown[shown > 0]).mean())

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have photos or were named, each counting alike (scikit-learn's
        `f1_score` with `average="macro"`)."""
        both = self.confusion.shown + self.confusion.said
        return float((2 * self.confusion.right[both > 0] / both[both > 0]).mean())

    def per_class(self) -> list[dict[str, Any]]:
        """Per class: photos, correct, recall with its 95 % interval, precision, F1; None where there is
        nothing to divide by.

        F1 is the harmonic mean of recall and precision, `2 correct / (photos + named)`: 0 where no photo of
        the class was named rightly, also where one of the two has nothing to divide by.
        """
        counts = (self.confusion.shown, self.confusion.right, self.confusion.said)
        return [
            {
                "class": name,
                "photos": photos,
                "correct": correct,
                "recall": correct / photos if photos else None,
                "precision": correct / named if named else None,
                "f1": 2 * correct / (photos + named) if photos + named else None,
                "recall_interval": list(wilson_interval(correct, photos)) if photos else None,
            }
            for name, photos, correct, named in zip(
                self.classes, *(each.tolist() for each in counts), strict=True
            )
        ]

    def as_json(self) -> dict[str, Any]:
        """`confusion` is the matrix `[label][named]`, None where it would be too large; `mistakes` says the
        same of any number of classes, with the numbers of right ones in `per_class`. `wrong` lists the photos
        that were named wrongly, the surest mistakes first."""
        whole = len(self.classes) <= MOST_IN_MATRIX
        return {
            "photos": self.photos,
            "accuracy": self.accuracy,
            "top5": self.top5,
            "loss": self.loss,
            "accuracy_interval": list(self.accuracy_interval),
            "macro_accuracy": self.macro_accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            **({} if self.sure is None else {"sure": self.sure.as_json()}),
            "per_class": self.per_class(),
            "confusion": self.confusion.matrix().tolist() if whole else None,
            "mistakes": [
                {"class": self.classes[label], "named": self.classes[named], "photos": count}
                for count, label, named in self.confusion.mistakes()
            ],
            "wrong": [mistake.as_json() for mistake in self.wrong.surest_first()],
        }


@dataclass(frozen=True)
class Outcome:
    """What came of a target."""

    figures: Evaluation | None
    """None where every photo was refused."""
    refused: list[str]
    """Why each photo that could not be used was not."""
    model: str | None
    """The file of the model that answered; None: a predictions file that does not say."""
    model_sha256: str | None
    sequences: int | None = None
    """In which the photos were named; None: each by itself."""
    without_time: int = 0
    """Photos that are sequences by themselves because they do not say when they were taken."""
    unknown: Unknown | None = None
    """How well photos of other things are told; None where that was not asked for."""

    def as_json(self) -> dict[str, Any]:
        made_by: dict[str, Any] = {"model": self.model, "model_sha256": self.model_sha256}
        made_by["refused"] = self.refused
        if self.sequences is not None:
            made_by |= {"sequences": self.sequences, "without_time": self.without_time}
        if self.unknown is not None:
            made_by["unknown"] = self.unknown.as_json()
        if self.figures is None:
            return made_by
        return {**self.figures.as_json(), "classes": list(self.figures.classes), **made_by}


def evaluate_target(
    request: Request, ranks: Ranks, audience: Audience, kept: Answers | None = None
) -> Outcome:
    """Evaluate a folder of class folders or a predictions file; every rank calls this. Complete on rank 0.

    Args:
        kept: takes the answer about each photo; None: only the figures are wanted.

    Raises:
        BirdsonnxError: a model, folder or file that cannot be used, or that do not fit together.
    """
    ranks.first(lambda: _require_fit(request))
    criteria = ranks.first(request.criteria.read)
    if request.target.is_dir():
        return _evaluate_folder(request, criteria, ranks, audience, kept)
    return ranks.first(lambda: _evaluate_file(request, criteria, audience, kept))


def _require_fit(request: Request, model: Path | None = None, photos: Iterable[str] = ()) -> None:
    """Raises ConfigError where a file to write is one that is read, or the target needs no labels."""
    if request.labels is not None and request.target.is_dir():
        raise ConfigError(
            f"--labels is for a predictions file, and {request.target} is a folder: its class folders say it"
        )
    species = request.criteria.species
    read = [
        ("TARGET", request.target),
        ("--model", model or request.model),
        ("--labels", request.labels),
        ("--species", species if isinstance(species, Path) else None),
    ]
    apart.require_apart(request.written, read, photos)


def _evaluate_folder(
    request: Request, criteria: ReadCriteria, ranks: Ranks, audience: Audience, kept: Answers | None
) -> Outcome:
    with audience.progress("listing the photos") as listed:
        folder = ranks.first(
            lambda: read_class_folders(request.target, request.tag, None, audience.say, True, listed)
        )
    prediction = requests.Request(
        [str(request.target)],
        request.model,
        threads=request.threads,
        precision=request.precision,
        engine=request.engine,
    )
    with audience.progress("opening the model"):
        model = ranks.first(lambda: choose_model(prediction, audience.say))
        classifier = open_model(model, len(folder.photos), prediction, ranks, audience)

    names = classifier.metadata.classes
    count = classifier.num_classes
    folder = ranks.first(lambda: fitted(folder, names, count, model.where, say=audience.say))
    judge = ranks.first(lambda: criteria.judge(classifier, 1, audience.say))
    sequences = sequences_of(folder.photos, request.sequence_gap_s, ranks, audience)
    refused: list[str] = []
    others: Sequence[Photo] | None = None
    if request.unknown is not None:
        of_none = partial(unknown.photos_of_none, classifier, request.unknown, folder.photos, audience)
        others = ranks.first(of_none)
    read = chain(paths_of(folder.photos), paths_of(others or ()))
    ranks.first(lambda: _require_fit(request, Path(model.where), read))
    known = array("d")

    def answers() -> Iterator[Answer]:
        with audience.progress("photos", len(folder.photos)) as advance:
            outcomes = counted(name_photos(classifier, folder.photos, ranks), advance)
            for named, answer in sharing(outcomes, sequences):
                if answer is None or named.photo.label is None:
                    refused.append(named.refusal)
                else:
                    if answer.known is not None:
                        known.append(answer.known)
                    yield named.photo.name, answer.log_probs, named.photo.label

    started = time.perf_counter()
    found = _judged(answers(), judge, kept, audience)
    if found is not None:
        found = replace(found, engine=classifier.engine.title, seconds=time.perf_counter() - started)
    told = None
    if others is not None:
        told, unread = unknown.measure(classifier, others, known, ranks, audience)
        refused += unread
    outcome = Outcome(found, refused, model.where, classifier.sha256, unknown=told)
    if sequences is None:
        return outcome
    return replace(outcome, sequences=sequences.count, without_time=sequences.without_time)


def _evaluate_file(
    request: Request, criteria: ReadCriteria, audience: Audience, kept: Answers | None
) -> Outcome:
    hdf5.require_file(request.target)  # a mistyped folder is no file to which an option does not apply
    for option, given in (
        ("--tag", request.tag is not None),
        ("--model", request.model is not None),
        ("--precision", request.precision is not None),
        ("--engine", request.engine != "auto"),
        ("--sequence-gap", request.sequence_gap_s is not None),
        ("--unknown", request.unknown is not None),
        ("--threads", request.threads is not None),
    ):
        if given:
            raise ConfigError(f"{option} is for a folder, and {request.target} is none")
    with contextlib.ExitStack() as stack:
        with audience.progress(f"reading {request.target}"):
            predictions = stack.enter_context(hdf5.reading(request.target))
            classes, labels = labels_of(predictions, str(request.target), request.labels)
        judge = criteria.judge_of(classes, None, None, 1, audience.say)
        return evaluate_predictions(predictions, classes, labels, audience, kept, judge)


def evaluate_predictions(
    predictions: Predictions,
    classes: Sequence[str],
    labels: Sequence[int],
    audience: Audience,
    kept: Answers | None = None,
    judge: Judge | None = None,
) -> Outcome:
    """Evaluate an open predictions file by what `labels_of` says. Raises DataError."""
    refused: list[str] = []

    def answers() -> Iterator[Answer]:
        with audience.progress("predictions", len(labels)) as advance:
            for name, log_probs, label in zip(predictions.names, predictions.rows(), labels, strict=True):
                advance(1)
                if np.isfinite(log_probs).all():
                    yield name, log_probs, label
                else:
                    refused.append(predictions.refusal_of(name))

    found = _judged(answers(), judge or Judge(classes), kept, audience)
    return Outcome(found, refused, predictions.model, predictions.model_sha256)


def _judged(
    answers: Iterable[Answer], judge: Judge, kept: Answers | None, audience: Audience
) -> Evaluation | None:
    """Figures of some photos' answers as a judge sees them."""
    judging = Judging(judge)
    found = evaluate(judging.seen(answers), judge.class_names, kept)
    if judging.off_list:
        audience.say(f"{judging.off_list} photos show a class that is not on the list: none of them is right")
    return None if found is None else replace(found, sure=judging.sure)


def evaluate(
    answers: Iterable[Answer], classes: Sequence[str], kept: Answers | None = None
) -> Evaluation | None:
    """Figures of some photos' answers, which are noted in `kept`; None where there are none."""
    counts: Counter[tuple[int, int]] = Counter()
    top5_hits = 0
    loss = 0.0
    wrong = Mistakes(classes)
    sums = Sums()
    for name, log_probs, label in answers:
        wrong.add(name, log_probs, label)
        if kept is not None:
            kept.add(name, log_probs, label)
        said = int(log_probs.argmax())
        counts[label, said] += 1
        sums.add(min(1.0, float(np.exp(log_probs[said]))), said == label)  # rounding may leave more than 1
        # A class without any probability is not among the likeliest, however few of them there are.
        top5_hits += int(np.isfinite(log_probs[label]) and (log_probs > log_probs[label]).sum() < 5)
        loss -= float(log_probs[label])
    confusion = Confusion.of(counts, len(classes))
    photos = confusion.photos
    if not photos:
        return None
    error = sums.reliability().expected_error
    return Evaluation(tuple(classes), confusion, top5_hits, loss / photos, wrong, error)
