"""Name photos and keep the log-probabilities, from what was asked for to a file, on any number of ranks."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.artifacts import locks
from birdsonnx.artifacts.apart import require_apart
from birdsonnx.artifacts.commands import Place, taking
from birdsonnx.errors import DataError, ImageError
from birdsonnx.images import detections, found_boxes
from birdsonnx.images.crops import BoxRequest
from birdsonnx.images.detections import Detections
from birdsonnx.images.inputs import collect
from birdsonnx.images.photo_list import Photo, paths_of
from birdsonnx.images.photo_status import status_of
from birdsonnx.images.sequences import Sequences
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.deciding import of_prediction
from birdsonnx.inference.evaluating.labels import label_in
from birdsonnx.inference.judging.bursts import Answer, sequences_of, sharing
from birdsonnx.inference.judging.verdicts import Judge, Judged, Keeper
from birdsonnx.inference.keeping import csv_file, hdf5, hdf5_table, journal, results_file
from birdsonnx.inference.keeping.csv_columns import Columns
from birdsonnx.inference.keeping.journal import Journal
from birdsonnx.inference.keeping.sorting import Sorter, require_folder_names, require_free
from birdsonnx.inference.keeping.summary import Summary
from birdsonnx.inference.keeping.unit_records import Shape
from birdsonnx.inference.naming import Named, counted, name_photos
from birdsonnx.inference.opening import ChosenModel, choose_model, open_model
from birdsonnx.inference.requests import Request
from birdsonnx.inference.units import Pieces
from birdsonnx.model.metadata import KNOWN
from birdsonnx.runtime.audience import Advance, Audience
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings


KEPT_FROM = 200
"""Photos from which on a killed run can be gone on with: an int8 ResNet50 names so many in 2 s on 2 cores."""


def predict(request: Request, ranks: Ranks, audience: Audience) -> Summary:
    """Name all photos; every rank calls this. The summary is complete on rank 0.

    Raises:
        BirdsonnxError: anything that cannot be carried out, before the first photo where possible.
    """
    if request.settings is not None:
        ranks.limit_waiting(request.settings.birdsonnx.rank_timeout)
    sorter = ranks.first(lambda: _sorter(request))
    criteria = ranks.first(request.criteria.read)
    with audience.progress("listing the photos") as found:
        chosen = _Chosen(request, audience.say, found)
        photos, refused = ranks.first(chosen.photos)
    sequences = sequences_of(photos, request.sequence_gap_s, ranks, audience)
    with audience.progress("opening the model"):
        model = ranks.first(lambda: choose_model(request, audience.say))
        classifier = open_model(model, len(photos), request, ranks, audience)
    settings = request.settings
    if settings is not None:
        ranks.first(lambda: _follow(settings, request, classifier, model, audience.say))
    judge = ranks.first(lambda: criteria.judge(classifier, request.top_k, audience.say))
    if sorter is not None:
        ranks.first(lambda: require_folder_names(judge.labels))
    with contextlib.ExitStack() as stack:
        place = ranks.first(lambda: _place(request, stack, audience.say))
        output, made_by = (None, None) if place is None else (place.paths[0], place.record)
        ranks.first(lambda: _require_apart(request, photos, output, Path(model.where)))
        keeping = _Progress(request, output, stack)
        ranks.first(lambda: keeping.open(classifier, photos, audience.say))
        with audience.progress("photos", len(photos)) as advance:
            files = Files(
                output=output,
                is_table=request.layout == "table",
                command=made_by,
                csv=request.csv,
                csv_raw=request.csv_raw,
                columns=request.columns,
                results=request.results,
                boxes=request.boxes,
                detections=chosen.detections,
            )
            more = (sorter, sequences, refused, keeping.journal)
            summary = record(classifier, photos, ranks, files, judge, advance, *more)
        if sorter is not None and ranks.is_first:  # the others have nothing to wait for
            sorter.place(output, audience)
            summary.sorted = sorter.folder
        return summary


@dataclass
class _Progress:
    """What is computed of the photos so far, where it is kept."""

    request: Request
    output: Path | None
    stack: contextlib.ExitStack
    journal: Journal | None = None
    """On rank 0 alone; it is left when the stack ends."""

    def open(self, classifier: Classifier, photos: Sequence[Photo], say: Callable[[str], None]) -> None:
        """Keep it beside the first of the files to write. Raises ArtifactError."""
        written = [each for each in (self.output, self.request.csv, self.request.results) if each is not None]
        if not written or len(photos) < KEPT_FROM:
            return
        target = written[0]
        if self.output is None:  # whose lock is taken already
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self.stack.enter_context(locks.sole_writer_of(target, say))
            except (OSError, locks.TakenError):
                return  # no file: who writes it says so; another run: it keeps its own there
        shape = Shape(
            Pieces(photos, classifier.per_run),
            classifier.num_classes,
            KNOWN in classifier.engine.outputs,
            status_of(photos),
        )
        what = "photos" if self.request.boxes is None else "boxes"
        facts = of_prediction(classifier, photos)
        self.journal = self.stack.enter_context(journal.kept(target, facts, shape, what, say))


@dataclass
class _Chosen:
    """What is to be named."""

    request: Request
    say: Callable[[str], None]
    advance: Advance
    """Is told of photos as they are found."""
    detections: Detections | None = None
    """A detector's file, on rank 0 alone: the others need none of its text."""

    def photos(self) -> tuple[Sequence[Photo], Sequence[tuple[Photo, str]]]:
        """Photos, or the crops of a detector's boxes; and what cannot be named, with the reason.

        Raises:
            BirdsonnxError: an input or the detector's file cannot be used, or what is there would be lost.
        """
        request, boxes = self.request, self.request.boxes
        _require_apart(request)
        if request.results is not None:
            results_file.require_own(request.results, request.overwrite)
        if boxes is None:
            return collect(request.inputs, request.tag, self.say, self.advance), ()
        self.detections = detections.read(boxes)
        photos = collect(request.inputs, request.tag, self.say, self.advance)
        found = found_boxes.find(self.detections, photos, boxes, self.say)
        return found.crops, found.refused


def _sorter(request: Request) -> Sorter | None:
    """What sorts the photos, where they are to be sorted. Raises ConfigError and DataError."""
    if request.sort is None:
        return None
    output = None if request.output is None else _output_file(request.output, 1)
    require_free(request.sort, request.inputs, (output, request.csv, request.results))
    return Sorter(request.sort, request.sort_copies)


def _output_file(folder: Path, number: int) -> Path:
    return folder / f"output_{number}.h5"


def _place(request: Request, stack: contextlib.ExitStack, say: Callable[[str], None]) -> Place | None:
    """Where the predictions go, kept for this process until the stack ends. Raises ArtifactError."""
    folder = request.output
    if folder is None:
        return None

    def names(number: int) -> list[Path]:
        return [_output_file(folder, number)]

    made_by = request.command.record(folder)
    return stack.enter_context(taking(names, made_by, hdf5.command_of, say, request.overwrite))


def _require_apart(
    request: Request, photos: Sequence[Photo] = (), output: Path | None = None, model: Path | None = None
) -> None:
    """Raises ConfigError where a result would take the place of what is read, or of another result."""
    criteria = request.criteria
    require_apart(
        [("--output", output), ("--csv", request.csv), ("--results", request.results)],
        [
            ("--model", model),
            ("--config", request.config),
            ("--species", criteria.species if isinstance(criteria.species, Path) else None),
            ("--taxonomy", criteria.taxonomy),
            ("--detections", None if request.boxes is None else request.boxes.file),
        ],
        paths_of(photos),
    )


@dataclass(frozen=True)
class Files:
    """What a prediction writes."""

    output: Path | None = None
    """The HDF5 file; None: none is written."""
    is_table: bool = False
    """Whether that holds one table, instead of a dataset for each photo."""
    command: str | None = None
    """The record of the command that makes it."""
    csv: Path | None = None
    """None: none is written."""
    csv_raw: bool = False
    """Whether texts in it stay as they are."""
    columns: tuple[str, ...] = ()
    """What else it says of each photo (`csv_columns`)."""
    results: Path | None = None
    """The file in MegaDetector's format; None: none is written."""
    boxes: BoxRequest | None = None
    """Which of a detector's boxes are named; None: whole photos."""
    detections: Detections | None = None
    """The detector's file, on rank 0."""


def record(
    classifier: Classifier,
    photos: Sequence[Photo],
    ranks: Ranks,
    files: Files = Files(),
    judge: Judge | None = None,
    advance: Advance = lambda _: None,
    sorter: Sorter | None = None,
    sequences: Sequences | None = None,
    refused: Sequence[tuple[Photo, str]] = (),
    progress: Journal | None = None,
) -> Summary:
    """Name all photos and write `files`; the summary, and what `sorter` is told, are complete on rank 0.

    Args:
        judge: what is to be said of a photo; None: what the model alone lets be said.
        sequences: whose photos share what is said of them; None: each photo is by itself.
        refused: photos and boxes that cannot be named, as is known already, and why.
        progress: what a killed run has computed, to which this one adds; on rank 0.

    Raises:
        ArtifactError: a file cannot be written.
        DataError: not one photo can be used; nothing is written then.
    """
    started = time.perf_counter()
    phases = Phases()
    judge = judge or Judge.of(classifier)
    summary = _empty(classifier, files, judge, sequences)
    with contextlib.ExitStack() as stack:
        keepers: list[Keeper] = [summary]
        if ranks.is_first:
            columns = Columns.of(judge, photos, files.columns, sequences is not None)
            keepers += [
                stack.enter_context(each) for each in _opened(files, classifier, judge, photos, columns)
            ]
        if sorter is not None:
            keepers.append(sorter)
        for photo, reason in refused if ranks.is_first else ():
            for keeper in keepers:
                keeper.refuse(photo, reason)
        outcomes = counted(name_photos(classifier, photos, ranks, progress, phases), advance)
        begun = time.perf_counter()
        for named, answer in sharing(outcomes, sequences):
            with phases.during("writing"):
                _tell(keepers, judge, named, answer, files.output is not None or files.results is not None)
        phases.add("waiting", time.perf_counter() - begun - phases.total("decode", "network"))
        summary.phases = phases.of_all(ranks)
        _require_some(summary)  # inside, so that older files stay
    _look_over(summary, classifier.metadata.classes or ())
    summary.from_killed = 0 if progress is None else progress.read_photos
    summary.seconds = time.perf_counter() - started
    return summary


def _empty(classifier: Classifier, files: Files, judge: Judge, sequences: Sequences | None) -> Summary:
    summary = Summary(classifier.where, classifier.sha256, classifier.engine.title, files.output, files.csv)
    summary.changed = None if judge.species is None else 0
    if sequences is not None:
        summary.sequences, summary.without_time = sequences.count, sequences.without_time
    summary.results, summary.boxes = files.results, None if files.boxes is None else 0
    return summary


def _look_over(summary: Summary, classes: Sequence[str]) -> None:
    """The photos that are listed one by one: whether their names say what they show; in order."""
    index = {known: position for position, known in enumerate(classes)}
    summary.says_classes = all(label_in(str(entry["name"]), index) is not None for entry in summary.shown)
    summary.shown.sort(key=lambda entry: str(entry["name"]))


def _tell(
    keepers: Sequence[Keeper], judge: Judge, named: Named, answer: Answer | None, is_kept: bool
) -> None:
    """Tell the keepers of a photo, whose name is kept in files or is not."""
    unstorable = _unstorable(named.photo.name) if is_kept else ""
    if named.log_probs is None or answer is None or unstorable:
        for keeper in keepers:
            keeper.refuse(named.photo, named.refusal or unstorable)
        return
    verdict = judge.verdict(answer.log_probs, answer.known)
    judged = Judged(named.photo, named.log_probs, verdict, named.known, answer.sequence)
    for keeper in keepers:
        keeper.add(judged)


def _opened(
    files: Files, classifier: Classifier, judge: Judge, photos: Sequence[Photo], columns: Columns
) -> Iterator[contextlib.AbstractContextManager[Keeper]]:
    """The files to write, each of which takes its place when its context ends without an error."""
    if files.output is not None:
        made_by = (classifier.sha256, classifier.where, files.command)
        table = hdf5_table.Size.of(photos) if files.is_table else None
        yield hdf5.writing(files.output, classifier.metadata.classes, *made_by, table)
    if files.csv is not None:
        yield csv_file.writing(files.csv, columns, files.csv_raw)
    if files.results is not None:
        made_with = (classifier.where, classifier.sha256, judge.class_names)
        origin = results_file.Origin(*made_with, files.boxes, files.detections)
        yield results_file.writing(files.results, origin)


def _unstorable(name: str) -> str:
    """Why HDF5 cannot hold a name; empty where it can."""
    try:
        hdf5.require_storable(name)
    except ImageError as error:
        return str(error)
    return ""


def _require_some(summary: Summary) -> None:
    refused = summary.refused
    if refused and not summary.photos:
        if len(refused) == 1:
            raise DataError(refused[0])
        raise DataError(f"none of the {len(refused)} photos can be used:", refused)


def _follow(
    settings: "Settings",
    request: Request,
    classifier: Classifier,
    model: ChosenModel,
    say: Callable[[str], None],
) -> None:
    """What a config asks of a prediction beside the photos and the model: to compare `layers`, to draw the
    graph; and which of its keys does not apply."""
    if settings.layers is not None:
        from birdsonnx.keras_io import loading  # not at the top: prediction itself starts faster without onnx

        loading.compare_layers(classifier.metadata, settings, model.where, say)
    if settings.data.test_tag is not None and request.tag is None:
        say(f"test_tag {settings.data.test_tag!r} is for the config's own folder, and not used here")
    if settings.debug:
        say(f"graph {_draw(model, str(settings.outfile))}")


def _draw(model: ChosenModel, outfile: str) -> Path:
    """Write the model's graph beside the outfile."""
    from birdsonnx.model import dot, model_file
    from birdsonnx.model.weight_names import weights_by_layer

    loaded = model_file.parse(model.read(), model.where)
    graph = loaded.proto.graph
    held = weights_by_layer(graph, {layer.name for layer in loaded.metadata.layers})
    trained = {name for layer in loaded.metadata.trainable for name in held.get(layer, ())}
    path = dot.path_beside(outfile)
    dot.write(path, graph, trained)
    return path
