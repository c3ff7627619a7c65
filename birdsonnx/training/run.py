"""A training run from its settings: plan it, say what will happen, train, keep what comes out."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from birdsonnx import artifacts
from birdsonnx.artifacts import locks
from birdsonnx.artifacts.commands import Command
from birdsonnx.config.computing import EngineName
from birdsonnx.config.settings import Settings
from birdsonnx.errors import EngineError, ModelError
from birdsonnx.images.folders import LabelledFolder
from birdsonnx.images.photo_list import labels_of
from birdsonnx.images.transforms import Views
from birdsonnx.inference import engines, quantizing
from birdsonnx.model import card, dot, int8_form, model_file
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.runtime import openvino_engine
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import calibration, checkpoints, feature_table, features, int8_backbone, resuming
from birdsonnx.training import plan as plans
from birdsonnx.training.audience import Facts, TrainingAudience
from birdsonnx.training.backbone import Backbone
from birdsonnx.training.epochs import best_epoch
from birdsonnx.training.features import Dataset, Features
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.learner import Learner
from birdsonnx.training.loop import Training
from birdsonnx.training.plan import Plan
from birdsonnx.training.results import Outcome, Results


def command_of(settings: Settings, words: Sequence[str] = ()) -> Command:
    """What makes a training the same command: the words that were typed, also where the config has other
    values by now; of a program, which typed none, the values."""
    return Command(("train", *words), ["train", *(sorted(words) or [repr(settings)])])


def train(
    settings: Settings,
    ranks: Ranks,
    audience: TrainingAudience,
    resume: bool = False,
    command: Command | None = None,
) -> Outcome:
    """Train the layers of a network that `settings` name; every rank calls this. `command` goes into what it
    writes (None: that of the settings).

    Raises:
        BirdsonnxError: anything that cannot be carried out, before the first epoch where possible.
        Interrupted: a signal asked for the end; what was trained is kept where checkpoints are.
    """
    ranks.limit_waiting(settings.birdsonnx.rank_timeout)
    with contextlib.ExitStack() as stack:
        ranks.first(lambda: _take_places(settings, stack, audience.say))
        return _train(settings, ranks, audience, resume, command or command_of(settings))


def _take_places(settings: Settings, stack: contextlib.ExitStack, say: Callable[[str], None]) -> None:
    """Make sure that this run, and no other at the same time, writes where it is to write.

    Raises:
        ArtifactError: another one does, or nothing can be written there.
    """
    wanted = (settings.checkpoints.save, settings.data.test_output_path)
    places = {Path(folder).resolve(): Path(folder) for folder in wanted if folder is not None}
    for folder in places.values():
        stack.enter_context(locks.sole_writer_in(folder, say))
    if settings.checkpoints.save is not None:
        checkpoints.settle(Path(settings.checkpoints.save))


def _train(
    settings: Settings, ranks: Ranks, audience: TrainingAudience, resume: bool, command: Command
) -> Outcome:
    began = time.perf_counter()
    with audience.progress("reading the network and the folders"):
        plan = plans.make(settings, ranks, audience.say, resume)
    over = resuming.over(settings, plan.model.metadata.history) if resume else None
    if over is not None:
        audience.say(f"{plan.model.where}: {over}")
        return Outcome([], [Path(plan.model.where)], {"total": time.perf_counter() - began})
    log = ranks.together(lambda: audience.begin(facts_of(settings, ranks, plan, command)))
    if settings.debug:
        _draw(settings, ranks, plan, audience)
    planned = time.perf_counter()

    results = Results(settings, ranks, plan, audience.say, command, log)
    phases = Phases()
    train_set, test_set = datasets(settings, ranks, plan, audience, phases)
    with audience.progress("preparing the gradients"):
        learner = _learner(plan)
    prepared = time.perf_counter()

    Training(
        settings=settings,
        ranks=ranks,
        threads=plan.threads,
        learner=learner,
        train=train_set,
        test=test_set,
        listener=audience,
        keeper=results,
        phases=phases,
    ).run(results.before, plan.begun)
    trained = time.perf_counter()

    seconds = {"startup": planned - began, "features": prepared - planned, "epochs": trained - prepared}
    if settings.birdsonnx.early_stopping is not None:
        _say_the_best(settings, results, audience)
    if results.checkpoints:
        _write_forms(settings, ranks, plan, results, test_set, audience)
    if settings.birdsonnx.quantize and results.checkpoints:
        seconds["quantize"] = time.perf_counter() - trained
    seconds["total"] = time.perf_counter() - began
    return Outcome(results.epochs, results.checkpoints, seconds, phases.of_all(ranks))


def _write_forms(
    settings: Settings, ranks: Ranks, plan: Plan, results: Results, test: Dataset | None, audience: Audience
) -> None:
    """What is to lie beside the last checkpoint: its card, its calibrated form, and the int8 form of that."""
    own, checkpoint = settings.birdsonnx, results.checkpoints[-1]
    if own.model_card:
        card_path = ranks.first(lambda: _write_card(checkpoint, plan))
        audience.say(f"card {card_path}")
    if own.calibrate:
        assert test is not None, "the plan has seen to it"
        labels, predictions = test.labels, results.last_predictions()
        path = ranks.first(lambda: calibration.write(checkpoint, predictions, labels, audience.say))
        results.checkpoints.append(path)
        audience.say(f"calibrated {path}")
    if own.quantize:
        twin = ranks.first(lambda: _quantize(results.checkpoints[-1], plan, audience))
        results.checkpoints.append(twin)
        audience.say(f"int8 {twin}")


def facts_of(settings: Settings, ranks: Ranks, plan: Plan, command: Command) -> Facts:
    """What the audience gets to know of a plan."""
    return Facts(
        settings=settings,
        model=plan.model,
        train=plan.train,
        test=plan.test,
        loss=plan.loss,
        choice=plan.choice,
        cache=plan.cache,
        dropouts=plan.part.dropouts,
        trained_weights=plan.weights.flat.size,
        ranks=ranks.size,
        threads=plan.threads,
        epochs_done=plan.epochs_done,
        batches_done=plan.begun.steps,
        time_s=plan.time_s,
        command=command,
        log=plan.log,
        precision=plan.trained.line,
    )


def datasets(
    settings: Settings, ranks: Ranks, plan: Plan, audience: Audience, phases: Phases
) -> tuple[Dataset, Dataset | None]:
    """The photos to train on and to test on: their features, or checked and decoded for each batch.

    Raises:
        DataError: photos that cannot be decoded, all of one set listed.
        ArtifactError: the cache folder cannot hold the features.
    """
    engine = ranks.first(lambda: _engine(settings, plan))
    if engine == "openvino":
        audience.say(f"features by OpenVINO {openvino_engine.installed_version()}")
    try:
        return _datasets(engine, settings, ranks, plan, audience, phases)
    except EngineError as refusal:  # on all ranks
        if settings.birdsonnx.feature_precision == "bf16":
            raise
        audience.say(f"{refusal}; ONNX Runtime does")
        return _datasets("onnxruntime", settings, ranks, plan, audience, phases)


def _datasets(
    engine: EngineName, settings: Settings, ranks: Ranks, plan: Plan, audience: Audience, phases: Phases
) -> tuple[Dataset, Dataset | None]:
    with audience.progress("preparing the frozen layers"):
        backbone = _backbone(settings, ranks, plan, engine)

    def of(folder: LabelledFolder, what: str, seed: int | None) -> Dataset:
        photos, count = folder.photos, settings.birdsonnx.views
        views = None if backbone is None or seed is None or count is None else Views(count, seed)
        title = f"{'photos' if backbone is None else 'features'} of {what}"
        rows: Features
        total = len(photos) * (1 if views is None else views.count)
        with audience.progress(title, total) as advance:
            if backbone is None:
                preload = settings.data.preload
                rows = features.decoded(plan.decoder, photos, preload, seed, plan.threads, ranks, advance)
            else:
                cache = _cache(plan)
                rows = feature_table.cached(backbone, photos, cache, ranks, advance, views, phases)
        return Dataset(rows, labels_of(photos))

    train_set = of(plan.train, "train", settings.birdsonnx.seed if settings.data.augments else None)
    return train_set, None if plan.test is None else of(plan.test, "test", None)


def _engine(settings: Settings, plan: Plan) -> EngineName:
    """What computes the features of train and test alike, which are compared; on any number of ranks the
    same."""
    if plan.part.backbone is None:
        return "onnxruntime"
    own = settings.birdsonnx
    photos = len(plan.train.photos) * (own.views or 1) + (0 if plan.test is None else len(plan.test.photos))
    bf16, is_int8 = own.feature_precision == "bf16", own.feature_precision == "int8"
    return engines.choose(own.engine, bf16, photos, lambda: is_int8)


def _backbone(settings: Settings, ranks: Ranks, plan: Plan, engine: EngineName) -> Backbone | None:
    """What computes the features, or None where the photos themselves are trained on."""
    part = plan.part
    if part.backbone is None:
        return None
    row: np.dtype[Any] = np.dtype((part.row_type, part.row_shape))
    precision = settings.birdsonnx.feature_precision
    content = part.backbone
    if precision == "int8":
        float32 = Backbone(content, row, plan.decoder, plan.threads)
        preprocessing, photos, cache = plan.model.metadata.preprocessing, plan.train.photos, _cache(plan)
        content = ranks.first(lambda: int8_backbone.quantized(float32, preprocessing, photos, cache))
    return Backbone(content, row, plan.decoder, plan.threads, engine, bf16=precision == "bf16")


def _cache(plan: Plan) -> Path:
    assert plan.cache is not None, "without a cache the photos are the boundary"
    return plan.cache


def _learner(plan: Plan) -> Learner:
    try:
        gradients = Gradients(plan.part, plan.loss, plan.weights, plan.threads, plan.trained.kernels)
    except ModelError as error:
        raise ModelError(f"{plan.model.where}: {error}") from None
    return Learner(plan.part, plan.weights, plan.loss, gradients, plan.optimizer)


def _draw(settings: Settings, ranks: Ranks, plan: Plan, audience: Audience) -> None:
    """Write the network's graph beside the logs, with what is trained and what is kept."""
    path = dot.path_beside(str(settings.outfile))
    kept = () if plan.part.boundary.is_photo else plan.part.boundary.tensors
    ranks.first(lambda: dot.write(path, plan.network.proto.graph, plan.part.weights.keys(), kept))
    audience.say(f"graph {path}")


def _say_the_best(settings: Settings, results: Results, audience: Audience) -> None:
    last = results.history[-1].epoch
    why = "" if last == settings.num_epochs else f"stopped after epoch {last}; "
    audience.say(f"{why}the lowest test loss was that of epoch {best_epoch(results.history)}")


def _write_card(checkpoint: Path, plan: Plan) -> Path:
    sets = {"trained": plan.train, "tested": plan.test}
    photos = [
        f"{verb} on {len(each.photos):,} photos of {len(set(labels_of(each.photos).tolist()))} classes in "
        f"{each.where}"
        for verb, each in sets.items()
        if each is not None
    ]
    return card.write(model_file.load(checkpoint), checkpoint, photos)


def _quantize(checkpoint: Path, plan: Plan, audience: Audience) -> Path:
    """Write the int8 form of a checkpoint beside it."""
    photos = quantizing.evenly(plan.train.photos, quantizing.PHOTOS)
    content = read_bytes(checkpoint)
    model, digest = model_file.parse(content, str(checkpoint)), artifacts.sha256_of(content)
    quantized = quantizing.quantized_model(model, photos, "minmax", plan.threads, digest, audience)
    path = int8_form.of(checkpoint)
    quantized.save(path)
    return path
