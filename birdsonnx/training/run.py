"""A training run from its settings: check everything, say what will happen, train, keep checkpoints."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from birdsonnx import artifacts
from birdsonnx.config.schedules import Cosine
from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import RandomTransform
from birdsonnx.errors import ConfigError, TrainingError
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.folders import (
    LabelledFolder,
    require_fit,
    require_same_classes,
    test_photos,
    training_photos,
)
from birdsonnx.inference import hdf5, quantizing
from birdsonnx.keras_io import loading
from birdsonnx.model import dot, model_file
from birdsonnx.model.checkpoint_names import INT8_SUFFIX
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.trainable import trainable_layers
from birdsonnx.model.weights import with_weights
from birdsonnx.runtime import threads
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import boundary as boundaries
from birdsonnx.training import checkpoints, features, int8_backbone, optimizers
from birdsonnx.training.features import Backbone, Features
from birdsonnx.training.gradients import Gradients, require_training
from birdsonnx.training.loop import Dataset, Epoch, Listener, LogProbs, Training, best_epoch
from birdsonnx.training.losses import Loss
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Boundary, Network, Partition


@dataclass(frozen=True)
class Plan:
    """All that rank 0 found out before the first photo is decoded."""

    content: bytes
    """The model to start from, serialized."""
    where: str
    train: LabelledFolder
    test: LabelledFolder | None
    run: int
    state: checkpoints.State | None
    """Of the checkpoint that is resumed."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    epochs: list[Epoch]
    checkpoints: list[Path]
    seconds: dict[str, float]
    """Wall time of each phase."""


class TrainingAudience(Audience, Listener, Protocol):
    """Whoever a training reports to."""

    def begin(self, summary: dict[str, str], keep_through_epoch: int, time_s: float) -> None: ...


def train(settings: Settings, ranks: Ranks, audience: TrainingAudience, resume: bool = False) -> Outcome:
    """Train the layers of a network that `settings` name; every rank calls this.

    Raises:
        BirdsonnxError: anything that cannot be carried out, before the first epoch where possible.
    """
    began = time.perf_counter()
    require_training()
    data, own = settings.data, settings.birdsonnx
    cache = None if data.augments else own.cache_folder
    plan = ranks.first(lambda: _plan(settings, resume, audience.say))
    model = model_file.parse(plan.content, plan.where)
    trainable = ranks.together(lambda: trainable_layers(model.metadata, own.trainable))
    network = ranks.together(lambda: Network(model, trainable))
    model = BirdModel(
        model.proto,
        model.metadata.having(
            classes=plan.train.classes,
            trainable=trainable,
            transforms=data.lasting_transforms,
            history=() if plan.state is None else model.metadata.history,
        ),
        model.where,
    )
    loss = ranks.together(lambda: _loss(settings, model))
    share = threads.share(ranks, own.threads)
    if share.note:
        audience.say(share.note)
    decode = ranks.together(lambda: decoder(*model.input_size, data.transforms, data.grayscale))
    boundary = ranks.first(lambda: _boundary(network, plan, cache, decode, share.threads * ranks.size))
    part = network.divide(boundary, half=own.feature_precision == "fp16" and cache is not None)

    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    optimizer = optimizers.build(settings.optimizer, weights, share.threads)
    done, spent_s = _restore(optimizer, plan.state)
    summary = _summary(settings, ranks, plan, model, share.threads, weights, part, cache)
    audience.begin(summary, done, spent_s)
    if settings.debug:
        path = dot.path_beside(str(settings.outfile))
        kept = () if part.boundary.is_photo else part.boundary.tensors
        ranks.first(lambda: dot.write(path, network.proto.graph, part.weights.keys(), kept))
        audience.say(f"graph {path}")
    started = time.perf_counter()

    backbone: Backbone | None = None
    if part.backbone is not None:
        row = np.dtype((part.row_type, part.row_shape))
        backbone = Backbone(part.backbone, row, decode, share.threads)
        if own.feature_precision == "int8":
            frozen, preprocessing = backbone, model.metadata.preprocessing
            photos, folder = plan.train.photos, Path(str(cache))
            content = ranks.first(lambda: int8_backbone.quantized(frozen, preprocessing, photos, folder))
            backbone = Backbone(content, row, decode, share.threads)

    def prepare(folder: LabelledFolder, what: str, seed: int | None) -> Dataset:
        title = f"{'photos' if backbone is None else 'features'} of {what}"
        table: Features
        with audience.progress(title, len(ranks.share(len(folder.photos)))) as advance:
            if backbone is None:
                table = features.decoded(
                    decode, folder.photos, data.preload, seed, share.threads, ranks, advance
                )
            else:
                table = features.cached(backbone, folder.photos, Path(str(cache)), ranks, advance)
        return Dataset(table, np.array([photo.label for photo in folder.photos], np.int64))

    train_set = prepare(plan.train, "train", own.seed if data.augments else None)
    test_set = prepare(plan.test, "test", None) if plan.test is not None else None
    if backbone is not None:
        backbone.release()
    prepared = time.perf_counter()

    outcome = Outcome([], [], {})
    before = [Epoch(**entry) for entry in model.metadata.history]

    def keep(epoch: Epoch, last: bool) -> None:
        outcome.epochs.append(epoch)
        history = [*before, *outcome.epochs]
        folder, interval = settings.checkpoints.save, settings.checkpoints.interval
        due = last or epoch.epoch % interval == 0
        best = own.early_stopping is not None and best_epoch(history) == epoch.epoch
        if folder is None or not (due or best):
            return
        entries = [
            {key: value for key, value in asdict(entry).items() if value is not None} for entry in history
        ]
        trained = with_weights(model, weights.named)
        record = {"run": plan.run, "epoch": epoch.epoch}
        metadata = trained.metadata.having(history=tuple(entries), run=record)
        checkpoint = BirdModel(trained.proto, metadata, trained.where)
        if due:
            time_s = spent_s + time.perf_counter() - started
            binding = {**_binding(settings), "boundary": list(boundary.tensors)}
            path = ranks.first(lambda: checkpoints.save(Path(folder), checkpoint, optimizer, time_s, binding))
            outcome.checkpoints.append(path)
            audience.say(f"checkpoint {path}")
        if best:
            path = ranks.first(lambda: checkpoints.save_best(Path(folder), checkpoint))
            audience.say(f"best so far {path}")

    Training(
        settings,
        ranks,
        part,
        Gradients(part, loss, weights, share.threads),
        loss,
        weights,
        optimizer,
        train_set,
        test_set,
        share.threads,
        audience,
        keep,
        _prediction_keeper(settings, ranks, plan, model, weights),
    ).run(before)
    ended = time.perf_counter()
    if own.early_stopping is not None:
        epochs = [*before, *outcome.epochs]
        why = "" if epochs[-1].epoch == settings.num_epochs else f"stopped after epoch {epochs[-1].epoch}; "
        audience.say(f"{why}the lowest test loss was that of epoch {best_epoch(epochs)}")
    outcome.seconds.update(startup=started - began, features=prepared - started, epochs=ended - prepared)
    if own.quantize and outcome.checkpoints:
        twin = ranks.first(lambda: _quantize(outcome.checkpoints[-1], plan, share.threads))
        outcome.checkpoints.append(twin)
        audience.say(f"int8 {twin}")
        outcome.seconds["quantize"] = time.perf_counter() - ended
    outcome.seconds["total"] = time.perf_counter() - began
    return outcome


def _quantize(checkpoint: Path, plan: Plan, threads: int) -> Path:
    """Write the int8 form of a checkpoint beside it."""
    photos = quantizing.evenly(plan.train.photos, quantizing.PHOTOS)
    quantized = quantizing.quantized_model(model_file.load(checkpoint), photos, "minmax", threads)
    path = checkpoint.with_suffix(INT8_SUFFIX)
    quantized.save(path)
    return path


def _loss(settings: Settings, model: BirdModel) -> Loss:
    weight = settings.loss.weight
    if weight is not None and len(weight) != model.num_classes:
        raise ConfigError(
            f"neural_network.loss.weight: {len(weight)} numbers for {model.num_classes} classes; give one "
            "for each"
        )
    return Loss.of(settings, model.num_classes)


def _boundary(network: Network, plan: Plan, cache: Path | None, decode: Decoder, threads: int) -> Boundary:
    """Where to divide the network; a resumed run is divided where it was."""
    candidates = network.boundaries()
    if cache is None:
        return candidates[-1]
    if plan.state is not None:
        known = plan.state.settings.get("boundary")
        for candidate in candidates:
            if list(candidate.tensors) == known:
                return candidate
    photos = [*plan.train.photos, *(plan.test.photos if plan.test else ())]
    read = boundaries.decoder_of([photo.path for photo in photos], decode)
    existing = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), Path())
    return boundaries.cheapest(network, len(photos), threads, shutil.disk_usage(existing).free, read)


def _plan(settings: Settings, resume: bool, say: Callable[[str], None]) -> Plan:
    """Everything that can be refused before work begins, refused; rank 0 only."""
    data, save = settings.data, settings.checkpoints.save
    train = training_photos(data)
    test = test_photos(data)
    if test is not None:
        require_same_classes(test.classes, train.classes, test.where, train.where)
    if data.test_output_path is not None and test is None:
        raise ConfigError(
            "neural_network.data.test_output_path: there is nothing to predict without test_input_path"
        )
    if data.test_output_path is not None and test is not None:
        for photo in test.photos:
            hdf5.require_storable(photo.name)
    if settings.birdsonnx.quantize and save is None:
        raise ConfigError(
            "neural_network.birdsonnx.quantize: there is no checkpoint without checkpoints.save"
        )
    if settings.birdsonnx.feature_precision == "int8" and settings.birdsonnx.cache is False:
        raise ConfigError(
            "neural_network.birdsonnx.feature_precision: int8 features are cached; remove cache false"
        )
    state = None
    run = 1
    if resume:
        if save is None:
            raise ConfigError("--resume needs checkpoints.save, the folder of the run's checkpoints")
        model, state = checkpoints.newest(Path(save))
        run = state.run
        _require_same_run(state, settings, model.where)
        say(f"resuming after epoch {state.epoch} from {model.where}")
    else:
        model = loading.to_train(settings, say)
        if save is not None:
            run = checkpoints.next_run(Path(save))
    _require_matching_classes(settings, model, train)
    return Plan(model.serialized(), model.where, train, test, run, state)


def _require_matching_classes(settings: Settings, model: BirdModel, train: LabelledFolder) -> None:
    tag = f" --tag {train.tag}" if train.tag else ""
    mend = f"export a network for them: birdsonnx export --labels {train.root}{tag}"
    if settings.layers is not None:
        mend = f"set the units of the last layer in 'layers' to {len(train.classes)}"
    require_fit(train, model.metadata.classes, model.num_classes, model.where, mend)


def _require_same_run(state: checkpoints.State, settings: Settings, where: str) -> None:
    for name, value in _binding(settings).items():
        if state.settings.get(name) != value:
            raise TrainingError(
                f"{where}: its run had {name} {state.settings.get(name)!r}, the config has {value!r}; "
                "resume with "
                "the same, or start a new run from it with checkpoints.load"
            )


def _binding(settings: Settings) -> dict[str, Any]:
    """The settings that a resumed run must share with the one it continues."""
    transforms = settings.data.transforms
    return {
        "data.input_path": str(settings.data.input_path),
        "data.batch_size": settings.data.batch_size,
        "data.training_tag": settings.data.training_tag,
        "data.grayscale": settings.data.grayscale or None,
        "data.transforms": None if transforms is None else [step.as_json() for step in transforms],
        "optimizer": settings.optimizer.model_dump(mode="json"),
        "loss": settings.loss.model_dump(mode="json"),
        **({"num_epochs": settings.num_epochs} if _depends_on_length(settings) else {}),
        "birdsonnx.seed": settings.birdsonnx.seed,
        "birdsonnx.label_smoothing": settings.birdsonnx.label_smoothing,
        "birdsonnx.clip_norm": settings.birdsonnx.clip_norm,
        "birdsonnx.feature_precision": settings.birdsonnx.feature_precision,
        "birdsonnx.trainable": settings.birdsonnx.trainable and list(settings.birdsonnx.trainable),
    }


def _depends_on_length(settings: Settings) -> bool:
    """Whether the learning rate of an epoch follows from the number of epochs."""
    return isinstance(settings.optimizer.lr_scheduler, Cosine)


def _restore(optimizer: optimizers.Optimizer, state: checkpoints.State | None) -> tuple[int, float]:
    """Put a checkpoint's state back; returns epochs done and seconds spent."""
    if state is None:
        return 0, 0.0
    for name, values in optimizer.state.items():
        if name not in state.arrays or state.arrays[name].shape != values.shape:
            error = TrainingError(
                f"epoch {state.epoch} of run {state.run}: its optimizer state is that of another version or "
                "network; start a new run from its .onnx with checkpoints.load"
            )
            error.agreed = True  # rank 0 gave every rank the same state
            raise error
        values[...] = state.arrays[name]
    optimizer.steps = state.steps
    return state.epoch, state.time_s


def _summary(
    settings: Settings,
    ranks: Ranks,
    plan: Plan,
    model: BirdModel,
    threads_per_rank: int,
    weights: FlatWeights,
    part: Partition,
    cache: Path | None,
) -> dict[str, str]:
    """What is about to happen, as pairs of a title and a line."""
    data, optimizer, own = settings.data, settings.optimizer, settings.birdsonnx
    parameters = model.metadata.parameters
    statistics = f" (and {parameters.statistics:,} BatchNorm statistics)" if parameters.statistics else ""
    schedule = "constant"
    if optimizer.lr_scheduler is not None:
        details = optimizer.lr_scheduler.model_dump(exclude={"type", "verbose"})
        schedule = f"{optimizer.lr_scheduler.type} ({_pairs(details)}), per epoch"
    rank_photos = len(plan.train.photos) / ranks.size
    summary = {
        "network": f"{plan.where}: {len(model.metadata.layers)} layers with weights, "
        f"{model.num_classes} classes, input {' x '.join(map(str, model.input_size))}",
        "preprocessing": model.metadata.preprocessing.name,
        "parameters": f"{parameters.total - parameters.statistics:,} in total{statistics}, "
        f"{weights.flat.size:,} trainable: {_layers(model.metadata.trainable)}",
        "optimizer": f"{optimizer.type} ({_pairs(optimizer.model_dump(exclude={'type', 'lr_scheduler'}))})",
        "schedule": schedule,
        "loss": _loss_line(settings),
        "train": f"{len(plan.train.photos):,} photos of {len(plan.train.classes)} classes "
        f"in {plan.train.where}{_left_out(plan.train)}",
        "test": "none" if plan.test is None else f"{len(plan.test.photos):,} photos in {plan.test.where}",
        "features": boundaries.describe(
            part.boundary,
            len(plan.train.photos) + (len(plan.test.photos) if plan.test else 0),
            own.feature_precision if cache is not None else "fp32",
            cache,
        ),
        "ranks": f"{ranks.size} x {threads_per_rank} thread{'s' * (threads_per_rank > 1)}, "
        f"{rank_photos:,.0f} photos each",
        "batch": f"{data.batch_size} over all ranks, {data.batch_size / ranks.size:g} per rank",
        "epochs": f"{settings.num_epochs}" + (f", {plan.state.epoch} done" if plan.state else ""),
    }
    if model.metadata.dropout:
        summary["dropout"] = _dropout_line(model.metadata, part)
    if data.preload and not part.boundary.is_photo:
        summary["preload"] = "changes nothing: features are kept, each photo is read once"
    if own.feature_precision != "fp32" and (cache is None or part.boundary.is_photo):
        summary["precision"] = f"{own.feature_precision} changes nothing: no features are kept"
    if data.augments:
        steps = [step for step in data.transforms or () if isinstance(step, RandomTransform)]
        summary["augmentation"] = ", ".join(
            f"{name} {value:g}" for step in steps for name, value in step.as_json().items()
        )
    return summary


def _left_out(folder: LabelledFolder) -> str:
    return f"; {folder.left_out:,} more there are in neither set" if folder.left_out else ""


def _dropout_line(metadata: Metadata, part: Partition) -> str:
    acting = ", ".join(f"{each.node.split('/')[0]} {each.rate:g}" for each in part.dropouts) or "none"
    frozen = len(metadata.dropout) - len(part.dropouts)
    return acting + (f"; {frozen} in front of frozen layers, where nothing is dropped" if frozen else "")


def _layers(names: Sequence[str], most: int = 6) -> str:
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"


def _loss_line(settings: Settings) -> str:
    loss, own = settings.loss, settings.birdsonnx
    name = "negative log-likelihood" if loss.function == "NLL" else f"gamma {loss.gamma:g}"
    extras = [
        f"{len(loss.weight)} class weights" if loss.weight is not None else "",
        f"label smoothing {own.label_smoothing:g}" if own.label_smoothing else "",
        f"gradient norm at most {own.clip_norm:g}" if own.clip_norm else "",
    ]
    return ", ".join([f"{loss.function} ({name})", *filter(None, extras)])


def _pairs(content: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}".lower()
        for key, value in content.items()
    )


def _prediction_keeper(
    settings: Settings, ranks: Ranks, plan: Plan, model: BirdModel, weights: FlatWeights
) -> Callable[[int, Iterator[tuple[range, LogProbs]]], None] | None:
    """Writes `output_<epoch>.h5` at each evaluation, if `test_output_path` asks for it."""
    folder, test = settings.data.test_output_path, plan.test
    if folder is None or test is None:
        return None

    def keep(epoch: int, predictions: Iterator[tuple[range, LogProbs]]) -> None:
        pieces = ranks.merge(predictions)
        if not ranks.is_first:
            return
        digest = artifacts.sha256_of(with_weights(model, weights.named).serialized())
        with hdf5.writing(Path(folder) / f"output_{epoch}.h5", model.metadata.classes, digest) as writer:
            for rows, log_probs in pieces:
                for row, values in zip(rows, log_probs, strict=True):
                    writer.add(test.photos[row].name, values)

    return keep
