"""A model that names photos."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from birdsonnx.api.calls import PathLike, joined_ranks
from birdsonnx.api.predictions import Prediction, Predictions, in_order, prediction_of
from birdsonnx.config.computing import EngineChoice, Precision
from birdsonnx.config.limits import MOST_THREADS
from birdsonnx.errors import ConfigError, DataError
from birdsonnx.images.inputs import collect
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.evaluating import evaluation
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.inference.judging.criteria import Criteria
from birdsonnx.inference.naming import name_photos
from birdsonnx.inference.opening import ChosenModel, open_model
from birdsonnx.inference.requests import Request
from birdsonnx.reporting.console import Console
from birdsonnx.runtime.ranks import Ranks


class Model:
    """A birdsonnx `.onnx` that names photos; `birdsonnx.load` makes one.

    Attributes:
        path: its file.
        classes: class names, in the order of the scores.
        known_threshold: of `Prediction.known`, below which a photo shows none of the classes; None for a
            model without that output.
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
        with joined_ranks() as all_ranks:
            content = all_ranks.first(ChosenModel(self.path, str(self.path)).read)
            self._content = ChosenModel(content, str(self.path))
            first = self._for_photos(1, all_ranks)
        self.classes = first.class_names
        known = first.metadata.known
        self.known_threshold = None if known is None else float(known["threshold"])
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
        with joined_ranks() as all_ranks:
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
                    named.append(prediction_of(each.photo, each.log_probs, verdict))
            return all_ranks.first(lambda: in_order(named, refused, notes))

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
        with joined_ranks() as all_ranks:
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
