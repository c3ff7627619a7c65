"""birdsonnx for programs: what the verbs `predict`, `evaluate`, `train` and `export` do, as functions.

A program that mpirun started works like the verbs: every rank calls the same function with the same
arguments, the ranks share the work, and each of them gets the whole result.
"""

import json
import os
import re
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from birdsonnx.config.computing import EngineChoice, Precision
from birdsonnx.config.limits import MOST_THREADS
from birdsonnx.errors import ConfigError, DataError, ModelError
from birdsonnx.images.folders import Photo
from birdsonnx.images.inputs import collect
from birdsonnx.inference import evaluation
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.evaluation import Evaluation
from birdsonnx.inference.forward import name_photos
from birdsonnx.inference.judging.criteria import Criteria
from birdsonnx.inference.opening import ChosenModel, open_model
from birdsonnx.inference.requests import Request
from birdsonnx.inference.verdicts import Verdict
from birdsonnx.reporting.console import Console
from birdsonnx.runtime import interruption, ranks
from birdsonnx.runtime.ranks import Ranks

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings
    from birdsonnx.keras_io import export as exporting
    from birdsonnx.training.results import Outcome

PathLike = str | os.PathLike[str]

CANNOT = 2
"""Exit code of ranks that one of them ends, as of the verbs."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo."""

    name: str
    """The photo's path below the folder that was given; of a photo itself its file name."""
    path: Path
    class_name: str
    """The likeliest class, of those that can occur."""
    probability: float
    """Of that class, 0 to 1."""
    top: tuple[tuple[str, float], ...]
    """The likeliest classes with their probabilities, the likeliest first; as many as `top_k`."""
    log_probs: npt.NDArray[np.float32]
    """What the network answered of every class, in the order of `Model.classes`: float32 `(classes,)`."""
    said: str
    """What is said of it: the class; or, where `level` is none, what is said instead."""
    level: str
    """`class`; or a level of the taxonomy; `unsure`, where nothing reaches its threshold; `unknown`, where
    the model takes it for none of its classes."""
    said_probability: float
    """Of what is said; where that is nothing, of the class."""
    instead_of: str | None = None
    """The likeliest class of all, where it cannot occur."""
    known: float | None = None
    """How much it is like photos of the classes, where the model says so."""


class Predictions(Sequence[Prediction]):
    """One `Prediction` for each photo that could be used, in the order of their names.

    Attributes:
        refused: why each photo that could not be used was not, one line each.
        notes: by what was decided what is said of them, and which names in a list of species or a taxonomy
            the model does not have, one line each.
    """

    def __init__(
        self, named: Sequence[Prediction], refused: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        self._named = tuple(named)
        self.refused = tuple(refused)
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        return self._named[index]

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return f"<{len(self)} predictions, {len(self.refused)} photos refused>"


class Model:
    """A birdsonnx `.onnx` that names photos; `birdsonnx.load` makes one.

    Attributes:
        path: its file.
        classes: class names, in the order of the scores.
        input_size: of a photo as the network reads it: height, width, channels.
    """

    def __init__(
        self, path: PathLike, engine: EngineChoice, precision: Precision | None, threads: int | None
    ):
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise ConfigError(f"threads={threads}: give 1 to {MOST_THREADS}")
        self.path = Path(path)
        self._request = Request((), self.path, threads=threads, precision=precision, engine=engine)
        self._opened: tuple[int, Classifier] | None = None
        with _joined() as all_ranks:
            content = all_ranks.first(ChosenModel(self.path, str(self.path)).read)
            self._content = ChosenModel(content, str(self.path))
            first = self._for_photos(1, all_ranks)
        self.classes = first.class_names
        self.input_size = first.decoder.height, first.decoder.width, first.decoder.channels

    def predict(
        self,
        photos: PathLike | Sequence[PathLike],
        *,
        tag: str | None = None,
        top_k: int = 1,
        species: PathLike | Sequence[str] | None = None,
        threshold: float | None = None,
        taxonomy: PathLike | None = None,
    ) -> Predictions:
        """Name photos.

        Args:
            photos: a photo, a folder or a glob pattern, or several of them.
            tag: of a folder only the photos in folders of this name.
            top_k: how many classes `Prediction.top` holds.
            species: classes that can occur, their names or a file of them; the others' probability is taken
                away.
            threshold: probability below which a photo is `unsure`; None: as the model's own thresholds say;
                0: it never is.
            taxonomy: CSV of `class,genus,family,order`: what to say where the class is below the threshold.

        Raises:
            ConfigError: a threshold that is none, or a taxonomy without one.
            DataError: an input that is not there, or not one photo that can be used; a few that cannot are
                listed in the result.
        """
        if top_k < 1:
            raise ConfigError(f"top_k={top_k}: give 1 or more")
        criteria = Criteria(
            Path(species) if isinstance(species, str | os.PathLike) else species,
            threshold,
            None if taxonomy is None else Path(taxonomy),
        )
        given = [photos] if isinstance(photos, str | os.PathLike) else list(photos)
        with _joined() as all_ranks:
            found = all_ranks.first(lambda: collect([os.fspath(each) for each in given], tag))
            read = all_ranks.first(criteria.read)
            classifier = self._for_photos(len(found), all_ranks)
            notes: list[str] = []
            judge = all_ranks.first(lambda: read.judge(classifier, top_k, notes.append))
            named: list[Prediction] = []
            refused: list[str] = []
            for each in name_photos(classifier, found, all_ranks):
                if each.log_probs is None:
                    refused.append(each.refusal)
                else:
                    verdict = judge.verdict(each.log_probs, each.known)
                    named.append(_prediction(each.photo, each.log_probs, verdict))
            return all_ranks.first(lambda: _in_order(named, refused, notes))

    def evaluate(self, folder: PathLike, *, tag: str | None = None) -> Evaluation:
        """Compare what the model says of labelled photos with their classes.

        A photo that cannot be used counts nowhere, and a warning names it.

        Args:
            folder: of class folders.
            tag: name of the folders, anywhere below, that hold the class folders.

        Raises:
            DataError: no class folders, classes that the model does not have, or not one photo that can be
                used.
        """
        if not Path(folder).is_dir():
            raise DataError(f"{os.fspath(folder)}: there is no such folder of class folders")
        wanted = self._request
        request = evaluation.Request(
            Path(folder), self.path, tag, None, wanted.threads, wanted.precision, wanted.engine
        )
        with _joined() as all_ranks:
            mine = evaluation.evaluate_target(request, all_ranks, Console(speaks=False))
            outcome = all_ranks.first(lambda: mine)
        refused = outcome.refused
        if outcome.figures is None:
            raise DataError("not one photo can be used:", refused)
        if refused:
            warnings.warn("photos that cannot be used:\n  " + "\n  ".join(refused), stacklevel=2)
        return outcome.figures

    def __repr__(self) -> str:
        return f"birdsonnx.load({str(self.path)!r})"

    def _for_photos(self, count: int, all_ranks: Ranks) -> Classifier:
        """Opened for so many photos; kept, since a program often names one photo after the other."""
        if self._opened is None or self._opened[0] != count:
            classifier = open_model(self._content, count, self._request, all_ranks, Console(speaks=False))
            self._opened = count, classifier
        return self._opened[1]


def _prediction(photo: Photo, log_probs: npt.NDArray[np.float32], verdict: Verdict) -> Prediction:
    return Prediction(
        photo.name,
        photo.path,
        *verdict.top[0],
        tuple(verdict.top),
        log_probs,
        verdict.said,
        verdict.level,
        verdict.probability,
        None if verdict.instead_of is None else verdict.instead_of[0],
        verdict.known,
    )


def _in_order(named: list[Prediction], refused: list[str], notes: list[str]) -> Predictions:
    if not named:
        raise DataError("not one photo can be used:", refused)
    return Predictions(sorted(named, key=lambda each: each.name), refused, notes)


def load(
    path: PathLike,
    *,
    engine: EngineChoice = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
) -> Model:
    """Open a birdsonnx `.onnx`.

    Args:
        path: of the file.
        engine: what computes: `onnxruntime`, `openvino` (an extra), or `auto`, the faster one.
        precision: `fp32` or `int8` refuse a model of another kind; `bf16` computes a float32 model in bf16.
        threads: per process; None: its share of the cores.

    Raises:
        ModelError: no such file, or one that birdsonnx did not make, or a damaged one.
        ConfigError: an engine or a precision that this machine cannot do.
    """
    return Model(path, engine, precision, threads)


def train(
    settings: "Settings | Mapping[str, Any] | PathLike", *, resume: bool = False, verbose: bool = False
) -> "Outcome":
    """Train a network as a config says, and keep the checkpoints and logs that it names.

    In the main thread a signal (Ctrl-C, SIGTERM) lets the step end, keeps where the training stands for
    `resume`, and raises KeyboardInterrupt.

    Args:
        settings: the config: its file, the JSON itself (`{"neural_network": {…}}`), or settings that were
            read.
        resume: go on from the newest checkpoint.
        verbose: print what the verb prints.

    Returns:
        Its `epochs` (losses, accuracies), the `checkpoints` that were written, and the `seconds` of each
        phase.

    Raises:
        ConfigError: what the config asks for does not exist.
        BirdsonnxError: it cannot be carried out, before the first epoch where possible.
    """
    from birdsonnx.reporting.training_log import TrainingLog
    from birdsonnx.training import run

    with interruption.handled(), _joined() as all_ranks:
        read = all_ranks.first(lambda: _settings_of(settings))
        schedule = read.optimizer.lr_scheduler
        log = TrainingLog(
            Console(speaks=verbose and all_ranks.is_first),
            read.outfile,
            read.num_epochs,
            verbose=schedule is not None and schedule.verbose,
            speaks=all_ranks.is_first,
        )
        try:
            return run.train(read, all_ranks, log, resume)
        finally:
            log.close()


def _settings_of(settings: "Settings | Mapping[str, Any] | PathLike") -> "Settings":
    from birdsonnx.config import reading
    from birdsonnx.config.settings import Settings

    if isinstance(settings, Mapping):
        try:
            text = json.dumps(settings, default=os.fspath)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"settings: no JSON ({error})") from None
        read = reading.parse(text, "settings")
    else:
        read = settings if isinstance(settings, Settings) else reading.read(Path(settings))
    if read.data.input_path is None:
        raise ConfigError("neural_network.data.input_path: no photos to train on; this key is required")
    return read


class KerasModel(Protocol):
    """A model of Keras 2 or 3, in memory."""

    @property
    def name(self) -> str: ...
    def save(self, filepath: Any, /) -> Any: ...


def export(
    network: KerasModel | PathLike | None,
    output: PathLike,
    *,
    labels: PathLike | Sequence[str] | None = None,
    tag: str | None = None,
    classes: int | None = None,
    arch: str | None = None,
    weights: str = "imagenet",
    layers: PathLike | None = None,
    size: str | None = None,
    channels: int | None = None,
    preprocess: str = "auto",
    opset: int = 17,
    seed: int = 0,
) -> Model:
    """Convert a Keras network to one self-contained `.onnx`, and compare both where Keras is installed.

    Args:
        network: a Keras model, in memory or in its file (`.h5`, `.keras`); None: `arch` and `weights` say
            which, or `layers`.
        output: the file to write.
        labels: names of the classes: themselves, a folder of class folders, or a text file with one a line.

    The others are the options of the verb.

    Returns:
        The model, opened.

    Raises:
        ConfigError: arguments that contradict each other.
        ModelError: a network that cannot be read, or whose answers are not those of Keras.
    """
    from birdsonnx.keras_io import export as exporting  # with onnx, which a prediction does without

    request = exporting.Request(
        source=Path(network) if isinstance(network, str | os.PathLike) else None,
        output=Path(output),
        arch=arch,
        weights=weights,
        layers=None if layers is None else Path(layers),
        size=size,
        channels=channels,
        classes=classes,
        labels=Path(labels) if isinstance(labels, str | os.PathLike) else None,
        names=None if labels is None or isinstance(labels, str | os.PathLike) else tuple(labels),
        preprocess=preprocess,
        opset=opset,
        seed=seed,
        tag=tag,
    )
    with _joined() as all_ranks:
        all_ranks.wait_quietly()
        all_ranks.first(lambda: _export(network, request))
    return load(output)


def _export(network: KerasModel | PathLike | None, request: "exporting.Request") -> None:
    """On the first rank. A model in memory is saved as Keras saves it, and read from there."""
    from birdsonnx.keras_io import export as exporting

    if network is None or isinstance(network, str | os.PathLike):
        exporting.export(request)
        return
    with tempfile.TemporaryDirectory(prefix="birdsonnx-") as folder:
        file = Path(folder) / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', network.name)}.keras"
        try:
            network.save(str(file))
        except Exception as error:  # whatever a layer of the user's own raises
            reason = " ".join(str(error).split())
            raise ModelError(f"{network.name}: Keras cannot save it ({reason})") from error
        exporting.export(replace(request, source=file))


@contextmanager
def _joined() -> Iterator[Ranks]:
    """The ranks of this program. An error that not all of them have ends the others, which would wait."""
    joined = ranks.join()
    try:
        yield joined
    except BaseException as error:
        if joined.size > 1 and not getattr(error, "agreed", False):
            traceback.print_exc()
            joined.abort(CANNOT)
        raise
