"""A training run from its settings: check everything, say what will happen, train, keep checkpoints."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from birdsonnx import artifacts
from birdsonnx.config import Normalize, Settings
from birdsonnx.errors import ConfigError, DataError, TrainingError
from birdsonnx.images.decoding import decoder
from birdsonnx.images.folders import LabelledFolder, read_class_folders, require_same_classes
from birdsonnx.inference import hdf5
from birdsonnx.network import head, loading, model_file
from birdsonnx.network.metadata import Metadata
from birdsonnx.network.model_file import BirdModel
from birdsonnx.runtime import threads
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import checkpoints, features, optimizers
from birdsonnx.training.features import Backbone, Features
from birdsonnx.training.gradients import HeadGradients, require_training
from birdsonnx.training.loop import Dataset, Epoch, Listener, LogProbs, Training
from birdsonnx.training.parameters import FlatWeights


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


class Audience(Listener, Protocol):
    """Whoever a run reports to: lines, logs, progress."""

    def say(self, line: str) -> None: ...
    def begin(self, summary: dict[str, str], keep_through_epoch: int, time_s: float) -> None: ...

    def progress(self, title: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]:
        """Open a bar of so many steps; gives the function that advances it."""


def train(settings: Settings, ranks: Ranks, audience: Audience, resume: bool = False) -> Outcome:
    """Train the head of a network as `settings` say; every rank calls this.

    Raises:
        BirdsonnxError: anything that cannot be carried out, before the first epoch where possible.
    """
    began = time.perf_counter()
    require_training()
    cache = settings.birdsonnx.cache_folder
    plan = ranks.first(lambda: _plan(settings, resume, audience.say))
    model = model_file.parse(plan.content, plan.where)
    trainable, split = ranks.together(lambda: _trainable_part(model, settings))
    model = BirdModel(
        model.proto,
        model.metadata.having(
            classes=plan.train.classes,
            trainable=trainable,
            transforms=None if settings.data.transforms is None else _geometric(settings),
            history=() if plan.state is None else model.metadata.history,
        ),
        model.where,
    )
    share = threads.share(ranks, settings.birdsonnx.threads)
    if share.note:
        audience.say(share.note)
    decode = ranks.together(lambda: decoder(*model.input_size, settings.data.transforms))
    backbone = Backbone(split, decode, share.threads)

    weights = FlatWeights(split.weights)
    weights.set(split.weights)
    optimizer = optimizers.build(settings.optimizer, weights.flat.size)
    done, spent_s = _restore(optimizer, plan.state)
    audience.begin(_summary(settings, ranks, plan, model, share.threads, weights), done, spent_s)
    started = time.perf_counter()

    def prepare(folder: LabelledFolder, what: str) -> Dataset:
        with audience.progress(f"features of {what}", len(ranks.share(len(folder.photos)))) as advance:
            table: Features
            if cache is None:
                table = features.recomputed(backbone, folder.photos, settings.data.preload, ranks, advance)
            else:
                table = features.cached(backbone, folder.photos, cache, ranks, advance)
        return Dataset(table, np.array([photo.label for photo in folder.photos], np.int64))

    train_set = prepare(plan.train, "train")
    test_set = prepare(plan.test, "test") if plan.test is not None else None
    if cache is not None:
        backbone.release()
    prepared = time.perf_counter()

    outcome = Outcome([], [], {})
    history = list(model.metadata.history)

    def keep(epoch: Epoch) -> None:
        outcome.epochs.append(epoch)
        history.append({key: value for key, value in asdict(epoch).items() if value is not None})
        checkpoint = settings.checkpoints
        due = epoch.epoch % checkpoint.interval == 0 or epoch.epoch == settings.num_epochs
        if checkpoint.save is None or not due:
            return
        trained = head.with_weights(model, weights.named)
        record = {"run": plan.run, "epoch": epoch.epoch}
        metadata = trained.metadata.having(history=tuple(history), run=record)
        path = ranks.first(
            lambda: checkpoints.save(
                Path(str(checkpoint.save)),
                BirdModel(trained.proto, metadata, trained.where),
                optimizer,
                spent_s + time.perf_counter() - started,
                _binding(settings),
            )
        )
        outcome.checkpoints.append(path)
        audience.say(f"checkpoint {path}")

    Training(
        settings,
        ranks,
        HeadGradients(split.head, split.weights, share.threads),
        weights,
        optimizer,
        train_set,
        test_set,
        audience,
        keep,
        _prediction_keeper(settings, ranks, plan, model, weights),
    ).run(done + 1)
    ended = time.perf_counter()
    outcome.seconds.update(
        startup=started - began, features=prepared - started, epochs=ended - prepared, total=ended - began
    )
    return outcome


def _plan(settings: Settings, resume: bool, say: Callable[[str], None]) -> Plan:
    """Everything that can be refused before work begins, refused; rank 0 only."""
    data, save = settings.data, settings.checkpoints.save
    train = read_class_folders(Path(str(data.input_path)))
    test = None
    if data.test_input_path is not None:
        test = read_class_folders(Path(data.test_input_path))
        require_same_classes(test.classes, train.classes, data.test_input_path, str(data.input_path))
    if data.test_output_path is not None and test is None:
        raise ConfigError(
            "neural_network.data.test_output_path: there is nothing to predict without test_input_path"
        )
    if data.test_output_path is not None and test is not None:
        for photo in test.photos:
            hdf5.require_storable(photo.name)
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
    _require_matching_classes(model.metadata, model, train)
    return Plan(model.serialized(), model.where, train, test, run, state)


def _trainable_part(model: BirdModel, settings: Settings) -> tuple[tuple[str, ...], head.Split]:
    trainable = head.trainable_layers(model.metadata, settings.birdsonnx.trainable)
    return trainable, head.split(model, trainable)


def _require_matching_classes(metadata: Metadata, model: BirdModel, train: LabelledFolder) -> None:
    if model.num_classes != len(train.classes):
        raise DataError(
            f"{model.where} has {model.num_classes} classes, {train.root} has {len(train.classes)} class "
            f"folders; export a network for them: birdsonnx export --labels {train.root}"
        )
    if metadata.classes is not None:
        require_same_classes(train.classes, metadata.classes, str(train.root), model.where)


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
        "data.transforms": None if transforms is None else [step.as_json() for step in transforms],
        "optimizer": settings.optimizer.model_dump(),
        "birdsonnx.seed": settings.birdsonnx.seed,
        "birdsonnx.trainable": settings.birdsonnx.trainable and list(settings.birdsonnx.trainable),
    }


def _restore(optimizer: optimizers.Optimizer, state: checkpoints.State | None) -> tuple[int, float]:
    """Put a checkpoint's state back; returns epochs done and seconds spent."""
    if state is None:
        return 0, 0.0
    for name, values in optimizer.state.items():
        values[...] = state.arrays[name]
    optimizer.steps = state.steps
    return state.epoch, state.time_s


def _geometric(settings: Settings) -> tuple[Any, ...]:
    return tuple(step for step in settings.data.transforms or () if not isinstance(step, Normalize))


def _summary(
    settings: Settings,
    ranks: Ranks,
    plan: Plan,
    model: BirdModel,
    threads_per_rank: int,
    weights: FlatWeights,
) -> dict[str, str]:
    """What is about to happen, as pairs of a title and a line."""
    data, optimizer = settings.data, settings.optimizer
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
        f"{weights.flat.size:,} trainable: {', '.join(model.metadata.trainable)}",
        "optimizer": f"{optimizer.type} ({_pairs(optimizer.model_dump(exclude={'type', 'lr_scheduler'}))})",
        "schedule": schedule,
        "loss": f"{settings.loss.function} (negative log-likelihood)",
        "train": f"{len(plan.train.photos):,} photos of {len(plan.train.classes)} classes "
        f"in {data.input_path}",
        "test": "none"
        if plan.test is None
        else f"{len(plan.test.photos):,} photos in {data.test_input_path}",
        "ranks": f"{ranks.size} x {threads_per_rank} thread{'s' * (threads_per_rank > 1)}, "
        f"{rank_photos:,.0f} photos each",
        "batch": f"{data.batch_size} over all ranks, {data.batch_size / ranks.size:g} per rank",
        "epochs": f"{settings.num_epochs}" + (f", {plan.state.epoch} done" if plan.state else ""),
    }
    if data.preload and settings.birdsonnx.cache is not False:
        summary["preload"] = "changes nothing: features are kept, each photo is read once"
    return summary


def _pairs(content: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if not isinstance(value, bool) else f"{key} {value}".lower()
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
        digest = artifacts.sha256_of(head.with_weights(model, weights.named).serialized())
        with hdf5.writing(Path(folder) / f"output_{epoch}.h5", model.metadata.classes, digest) as writer:
            for rows, log_probs in pieces:
                for row, values in zip(rows, log_probs, strict=True):
                    writer.add(test.photos[row].name, values)

    return keep
