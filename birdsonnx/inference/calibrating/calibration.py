"""Probabilities that mean what they say: a model's answers about validation photos give the temperature that
its scores are divided by, and the thresholds from which on they are to be believed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.artifacts.apart import require_apart
from birdsonnx.config.computing import EngineChoice
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.images.folders import LabelledFolder, fitted, read_class_folders
from birdsonnx.images.photo_list import Photo, paths_of
from birdsonnx.inference import requests
from birdsonnx.inference.calibrating import knowing, temperature, thresholds
from birdsonnx.inference.calibrating.temperature import Answered, Labels, LogProbs
from birdsonnx.inference.calibrating.thresholds import Thresholds
from birdsonnx.inference.classifier import Classifier, open_classifier
from birdsonnx.inference.evaluating.reliability import Reliability, reliability
from birdsonnx.inference.naming import Named, name_photos
from birdsonnx.inference.opening import ChosenModel, open_model
from birdsonnx.model import calibrated_form, model_file
from birdsonnx.model.checkpoint_names import CALIBRATED_SUFFIX, default_folder, newest_checkpoint
from birdsonnx.model.edits import copy_of
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.metadata_props import PREFIX
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.temperature import divide_scores
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

FEW = 30
"""Photos below which a temperature is hardly more than a guess."""
COMPARED = 4
"""Photos that the written graph is tried on."""
KEEP = 0.95
"""Share of the validation photos that the threshold of `known` keeps."""
TOLERANCE = 1e-4
"""Between its log-probabilities and those that were to come, relative to the largest of a photo."""


@dataclass(frozen=True)
class Request:
    """What to calibrate, on which photos."""

    validate: Path
    """Class folders of photos that the model was not trained on."""
    model: Path | None = None
    """None: the newest checkpoint."""
    output: Path | None = None
    """None: beside the model."""
    tag: str | None = None
    """Name of the folders in `validate` that hold the class folders; None: it does."""
    precision: float | None = None
    """Share of right answers that thresholds are fitted for; None: there are none."""
    threads: int | None = None
    """Per rank; None: its share of the cores."""
    engine: EngineChoice = "auto"
    known: Path | None = None
    """Class folders of training photos, for the output `known`; None: the model gets none."""
    keep: float | None = None
    """Share of the validation photos that the threshold of `known` keeps; None: `KEEP`."""
    plot: Path | None = None
    """What is to be drawn of it, which must be no file that is read."""


@dataclass(frozen=True)
class Validation:
    """What a model answers about validation photos: one pass, for all that is fitted to it."""

    log_probs: LogProbs
    """float32 `[photos, classes]`."""
    labels: Labels
    """Index of each photo's right class, int64 `[photos]`."""
    known: npt.NDArray[np.float32] | None = None
    """The output `known`, float32 `[photos]`, of a model that has it."""


@dataclass(frozen=True)
class Figures:
    """How far probabilities can be trusted."""

    loss: float
    """Mean negative log-likelihood of the right class."""
    accuracy: float
    reliability: Reliability

    def as_json(self) -> dict[str, float]:
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "calibration_error": self.reliability.expected_error,
            "overconfidence": self.reliability.excess,
        }


@dataclass(frozen=True)
class Calibration:
    """What was fitted, and what it changes."""

    temperature: float
    at_bound: bool
    photos: int
    before: Figures
    after: Figures
    thresholds: Thresholds | None

    def notes(self) -> list[str]:
        """What is to be said of the photos that it was fitted on."""
        notes = []
        if self.photos < FEW:
            notes.append(f"{self.photos} photos are few to calibrate with; {FEW} or more tell more")
        if self.at_bound and self.before.accuracy == 1:
            notes.append(
                f"all {self.photos} photos are named rightly, so none says how sure is too sure; the answers "
                "are made as sure as so many photos prove at most; calibrate with more of them"
            )
        elif self.at_bound:
            end = "lowest" if self.temperature < 1 else "highest"
            notes.append(f"the temperature is {self.temperature:g}, the {end} that is tried")
        return notes


@dataclass(frozen=True)
class Calibrated:
    """A model that answers calibrated log-probabilities."""

    model: BirdModel
    calibration: Calibration
    changed: str
    """What of its graph, in words."""


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    model: Path
    output: Path
    calibration: Calibration | None
    """None where every photo was refused; nothing is written then."""
    changed: str
    total: float
    """The temperature with those of earlier calibrations."""
    refused: list[str]
    """Why each photo that could not be used was not."""
    known: knowing.Known | None = None
    """What the output `known` was fitted to; None where none was asked for."""


def calibrate(request: Request, ranks: Ranks, audience: Audience) -> Outcome:
    """Write the calibrated form of a model; every rank calls this.

    Raises:
        BirdsonnxError: a model or folder that cannot be used; nothing is written then.
    """
    path, output, source = ranks.first(lambda: _source(request, audience))
    with audience.progress("listing the photos"):
        folder = ranks.first(
            lambda: read_class_folders(request.validate, request.tag, say=audience.say, may_lack=True)
        )
    written = (("--output", output), ("--plot", request.plot))
    ranks.first(lambda: require_apart(written, [("MODEL", path)], paths_of(folder.photos)))
    network = knowing.Network(source, str(path), request.threads, request.engine)
    content, means = source, None
    if request.known is not None:
        means = knowing.means_of(network, request.known, request.tag, folder, ranks, audience)
        content = ranks.first(lambda: knowing.answering_likeness(network, means))
    prediction = requests.Request(
        [str(request.validate)], path, threads=request.threads, engine=request.engine
    )
    with audience.progress("opening the model"):
        chosen = ChosenModel(content, str(path))
        classifier = open_model(chosen, len(folder.photos), prediction, ranks, audience)
    names, count = classifier.metadata.classes, classifier.num_classes
    folder = ranks.first(lambda: fitted(folder, names, count, str(path), say=audience.say))
    validation, photos, refused = validated(classifier, folder, ranks, audience)
    if means is not None:
        refused = [*means.refused, *refused]

    def finish() -> Outcome:
        if not len(validation.labels):
            return Outcome(path, output, None, "", 1.0, refused)
        model, known = network.parsed, None
        if means is not None:
            known = knowing.fit(validation.known, validation.log_probs, means, request.keep or KEEP)
            model = known.added_to(model)
        calibrated = calibrated_model(model, validation, artifacts.sha256_of(source), request.precision)
        _require_answers(model, calibrated, photos[:COMPARED])
        _say_what_is_lost(output, calibrated.model, audience)
        calibrated.model.save(output)
        total = float((calibrated.model.metadata.calibration or {})["temperature"])
        return Outcome(path, output, calibrated.calibration, calibrated.changed, total, refused, known)

    return ranks.first(finish)


def _source(request: Request, audience: Audience) -> tuple[Path, Path, bytes]:
    """The model's file, the file to write, and the first one's content. Raises ConfigError or ModelError."""
    path = request.model or newest_checkpoint(default_folder(audience.say))
    if request.output is None and path.name.endswith(CALIBRATED_SUFFIX):
        raise ConfigError(
            f"{path} is a calibrated model; calibrate the one that it was made of, or name the file to write "
            "with -o"
        )
    output = request.output or calibrated_form.of(path)
    if output.resolve() == path.resolve():
        raise ConfigError(f"--output {output} is the model itself; give another name")
    content = read_bytes(path)
    metadata = model_file.parse(content, str(path)).metadata
    if request.precision is not None and metadata.classes is None:
        raise ModelError(f"{path}: it has no class names, which thresholds are for; train it first")
    return path, output, content


def _say_what_is_lost(output: Path, model: BirdModel, audience: Audience) -> None:
    """What the file that is replaced had, and the new one has not."""
    if not output.is_file():
        return
    try:
        before = Metadata.of_file(read_bytes(output), str(output))
    except ModelError:
        return
    had = {"thresholds (--precision)": "thresholds", "the output known (--known)": "known"}
    lost = [
        what
        for what, field in had.items()
        if getattr(before, field) is not None and getattr(model.metadata, field) is None
    ]
    if lost:
        audience.say(f"{output}: had {' and '.join(lost)}, which the new file has not")


def validated(
    classifier: Classifier, folder: LabelledFolder, ranks: Ranks, audience: Audience
) -> tuple[Validation, list[Photo], list[str]]:
    """A pass over labelled photos on all ranks: on rank 0 the answers, in the order of the folder whatever
    the number of ranks, the photos that they are about, and why others were refused."""
    log_probs = np.empty((len(folder.photos) * ranks.is_first, classifier.num_classes), np.float32)
    answered = np.zeros(len(log_probs), bool)
    known = None if classifier.metadata.known is None else np.empty(len(log_probs), np.float32)
    reasons: dict[int, str] = {}
    with audience.progress("photos", len(folder.photos)) as advance:
        for named in name_photos(classifier, folder.photos, ranks):
            advance(1)
            place = named.index
            if named.log_probs is None:
                reasons[place] = named.refusal
            else:
                log_probs[place], answered[place] = named.log_probs, True
                if known is not None:
                    known[place] = named.known
    photos = [folder.photos[place] for place in np.flatnonzero(answered).tolist()]
    labels = np.array([photo.label for photo in photos], np.int64)
    known = None if known is None else known[answered]
    return (
        Validation(log_probs[answered], labels, known),
        photos,
        [reasons[place] for place in sorted(reasons)],
    )


def calibration_of(validation: Validation, precision: float | None = None) -> Calibration:
    """What one photo or more tell. `precision`: that of thresholds; None: there are none."""
    log_probs, labels = validation.log_probs, validation.labels
    fit = temperature.fit(log_probs, labels)
    before = temperature.answered(log_probs, labels, 1.0)
    after = temperature.answered(log_probs, labels, fit.temperature)
    limits = None
    if precision is not None:
        limits = thresholds.fit(after, labels, log_probs.shape[1], precision)
    return Calibration(
        fit.temperature, fit.at_bound, len(labels), _figures(before, labels), _figures(after, labels), limits
    )


def _figures(answers: Answered, labels: Labels) -> Figures:
    right = answers.said == labels
    found = reliability(answers.probability, right)
    return Figures(-float(answers.label_log_prob.mean()), float(right.mean()), found)


def calibrated_model(
    model: BirdModel, validation: Validation, source_sha256: str, precision: float | None = None
) -> Calibrated:
    """A model with the temperature in its graph, and in its metadata what was fitted on which photos: the
    temperature together with that of an earlier calibration, so that it is what training's scores are divided
    by. Earlier thresholds go: they were of other probabilities.

    Args:
        model: is left as it is.
        validation: its answers about one photo or more.
        source_sha256: of its file.
        precision: that thresholds are fitted for; None: it gets none.
    """
    found = calibration_of(validation, precision)
    proto = copy_of(model.proto)
    changed = divide_scores(proto, found.temperature)
    record = {
        "temperature": _total(model, found.temperature),
        "photos": found.photos,
        "expected_error_before": found.before.reliability.expected_error,
        "expected_error_after": found.after.reliability.expected_error,
        "loss_before": found.before.loss,
        "loss_after": found.after.loss,
        "accuracy": found.after.accuracy,
        calibrated_form.SOURCE: source_sha256,
    }
    limits = None if found.thresholds is None else found.thresholds.as_metadata()
    metadata = model.metadata.having(calibration=record, thresholds=limits)
    return Calibrated(BirdModel(proto, metadata, model.where), found, changed)


def _total(model: BirdModel, found: float) -> float:
    """What scores are divided by since their training. Raises ModelError where that is no number."""
    total = float((model.metadata.calibration or {}).get("temperature", 1.0)) * found
    if not 0 < total < np.inf:
        raise ModelError(f"{model.where}: its metadata are damaged: {PREFIX}calibration: no such temperature")
    return total


def _require_answers(model: BirdModel, calibrated: Calibrated, photos: Sequence[Photo]) -> None:
    """Raises ModelError where the new graph does not answer what it is to answer about some photos."""

    def answers(of: BirdModel) -> Iterator[Named]:
        return name_photos(open_classifier(of.serialized(), of.where, len(photos), 1), photos, Ranks())

    for before, after in zip(answers(model), answers(calibrated.model), strict=True):
        if before.log_probs is not None and after.log_probs is not None and before.known == after.known:
            scores = before.log_probs.astype(np.float64) / calibrated.calibration.temperature
            wanted = scores - scores.max()
            wanted -= np.log(np.exp(wanted).sum())
            if np.abs(after.log_probs - wanted).max() <= TOLERANCE * max(1.0, np.abs(wanted).max()):
                continue
        raise ModelError(
            f"{model.where}: with the temperature in its graph it answers something else than it is to; "
            "nothing was written"
        )
