"""A prediction or evaluation from what was asked for: inputs, model and threads settled, then the photos."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdsonnx.config.own import user_cache
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.images.folders import collect, read_class_folders, require_fit
from birdsonnx.inference import classifier as classifiers
from birdsonnx.inference import evaluation, hdf5, prediction, tuning
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.evaluation import Evaluation
from birdsonnx.inference.prediction import Summary
from birdsonnx.inference.requests import Precision, Request
from birdsonnx.inference.tuning import Form
from birdsonnx.keras_io import loading
from birdsonnx.model.checkpoint_names import HOW_TO_QUANTIZE, newest_checkpoint
from birdsonnx.runtime import threads
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

OUTPUT_FILE = "output_1.h5"

CHECKPOINTS = "model_checkpoints_save"
"""Where a model is looked for when none is named: the tutorial's folder."""


def predict(request: Request, ranks: Ranks, audience: Audience) -> tuple[Summary, str]:
    """Name all photos; every rank calls this. The summary is complete on rank 0; also the model's name.

    Raises:
        BirdsonnxError: anything that cannot be carried out, before the first photo where possible.
    """
    photos = ranks.first(lambda: collect(request.inputs, request.tag))
    model, where = ranks.first(lambda: _model(request, audience.say))
    classifier = _open(model, where, len(photos), request, ranks, audience)
    ranks.together(lambda: _require(request.precision, classifier, where))
    settings = request.settings
    if settings is not None and request.model is None:
        metadata = classifier.metadata
        ranks.first(lambda: loading.compare_layers(metadata, settings, where, audience.say))
    if settings is not None and settings.debug:
        drawn = ranks.first(lambda: _draw(model, where, str(settings.outfile)))
        audience.say(f"graph {drawn}")
    with audience.progress("photos", len(photos)) as advance:
        summary = prediction.predict(
            classifier,
            photos,
            ranks,
            None if request.output is None else request.output / OUTPUT_FILE,
            request.top_k,
            request.csv,
            advance,
        )
    return summary, where


def evaluate_folder(
    target: Path,
    model: Path | None,
    requested: int | None,
    ranks: Ranks,
    audience: Audience,
    tag: str | None = None,
) -> tuple[Evaluation | None, list[str]]:
    """Evaluate a folder of class folders, or of those in its folders `tag`; every rank calls this. Complete
    on rank 0: the figures (None where every photo was refused) and the refusals.

    Raises:
        BirdsonnxError: a model or folder that cannot be used, or that do not fit together.
    """
    folder = ranks.first(lambda: read_class_folders(target, tag))
    path = ranks.first(lambda: model or newest_checkpoint(Path(CHECKPOINTS)))
    request = Request([], threads=requested)
    classifier = _open(path, str(path), len(folder.photos), request, ranks, audience)

    names = classifier.metadata.classes
    ranks.first(lambda: require_fit(folder, names, classifier.num_classes, str(path)))
    refused: list[str] = []

    def outcomes() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
        with audience.progress("photos", len(folder.photos)) as advance:
            for named in prediction.name_photos(classifier, folder.photos, ranks):
                advance(1)
                if named.log_probs is None or named.photo.label is None:
                    refused.append(named.refusal)
                else:
                    yield named.log_probs, named.photo.label

    return evaluation.evaluate(outcomes(), folder.classes), refused


def evaluate_file(target: Path, labels: Path | None, tag: str | None = None) -> Evaluation | None:
    """Evaluate a predictions file. Raises DataError, and ConfigError for a tag, which only folders have."""
    if tag is not None:
        raise ConfigError(f"--tag is for a folder, and {target} is none")
    predictions = hdf5.read(target)
    classes, found = evaluation.labels_of(predictions, str(target), labels)
    return evaluation.evaluate(zip(predictions.log_probs, found, strict=True), classes)


def _model(request: Request, say: Callable[[str], None]) -> tuple[Path | bytes, str]:
    if request.model is not None:
        return request.model, str(request.model)
    if request.settings is not None and request.settings.checkpoints.load is not None:
        return loading.to_predict(request.settings, say)
    saved = None if request.settings is None else request.settings.checkpoints.save
    newest = newest_checkpoint(Path(saved or CHECKPOINTS), int8=request.precision == "int8")
    return newest, str(newest)


def _open(
    model: Path | bytes,
    where: str,
    photos: int,
    request: Request,
    ranks: Ranks,
    audience: Audience,
) -> Classifier:
    share = threads.share(ranks, request.threads)
    if share.note:
        audience.say(share.note)
    mine = len(ranks.share(photos))
    form = ranks.first(lambda: _form(model, request.tune, mine, share.threads, audience))
    return ranks.together(
        lambda: classifiers.open_classifier(
            model,
            where,
            mine,
            share.threads,
            request.transforms,
            form,
            request.per_run,
            grayscale=request.grayscale,
        )
    )


def _draw(model: Path | bytes, where: str, outfile: str) -> Path:
    """Write the model's graph beside the outfile."""
    from birdsonnx.model import dot, model_file  # not at the top: prediction itself starts faster without

    loaded = model_file.parse(model if isinstance(model, bytes) else classifiers.read_model(model), where)
    graph = loaded.proto.graph
    layers = set(loaded.metadata.trainable)
    trained = {tensor.name for tensor in graph.initializer if tensor.name.rpartition("/")[0] in layers}
    path = dot.path_beside(outfile)
    dot.write(path, graph, trained)
    return path


def _form(model: Path | bytes, tune: bool, photos: int, threads: int, audience: Audience) -> Form | None:
    """How to spread photos over cores, as measured now or remembered; None: it never was, or the photos are
    too few for it to matter."""
    memory = tuning.Memory(user_cache())
    if not tune and (photos < classifiers.MANY or memory.is_empty):
        return None
    content = model if isinstance(model, bytes) else classifiers.read_model(model)
    if not tune:
        return memory.recall(content, threads)
    audience.say("measuring how this machine runs the model classifiers.fastest …")
    found = tuning.probe(classifiers.fastest(content), threads)
    memory.keep(content, threads, found)
    audience.say(
        f"tuned: {found.form} ({found.images_per_second:.0f} images/s), remembered; used from "
        f"{classifiers.MANY} photos per rank on"
    )
    return found.form


def _require(precision: Precision | None, classifier: Classifier, where: str) -> None:
    is_int8 = classifier.metadata.quantization is not None
    if precision == "int8" and not is_int8:
        raise ModelError(f"{where} is a float32 model, --precision asks for int8; {HOW_TO_QUANTIZE}")
    if precision == "fp32" and is_int8:
        raise ModelError(
            f"{where} is an int8 model, --precision asks for fp32; give the model it was made of"
        )
