"""What a training run will do: all that can be refused is refused here, before the first photo is decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from birdsonnx.config.data import Data
from birdsonnx.config.settings import Settings
from birdsonnx.errors import ConfigError, DataError
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.folders import (
    LabelledFolder,
    fitted,
    test_photos,
    training_photos,
)
from birdsonnx.images.photo_list import labels_of, names_of
from birdsonnx.inference.keeping import hdf5
from birdsonnx.keras_io import loading
from birdsonnx.model import model_file
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.trainable import trainable_layers
from birdsonnx.runtime import threads
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import (
    boundary_choice,
    checkpoints,
    gradients,
    optimizers,
    precision,
    resuming,
    same_inputs,
)
from birdsonnx.training.boundary import PROBED
from birdsonnx.training.boundary_choice import Choice, Question
from birdsonnx.training.epochs import NOT_BEGUN, Begun
from birdsonnx.training.losses import Loss
from birdsonnx.training.optimizers import Optimizer
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.precision import Trainable

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the run works with, the same on every rank but for `threads`."""

    model: BirdModel
    """The model to start from, with the metadata that its checkpoints will have."""
    train: LabelledFolder
    test: LabelledFolder | None
    decoder: Decoder
    cache: Path | None
    """Folder of the features; None: none are kept."""
    choice: Choice
    """Where the network is divided."""
    trained: Trainable
    """What is trained, in which precision and by what."""
    loss: Loss
    optimizer: Optimizer
    run: int
    """Its number among the trainings of the checkpoints' folder."""
    epochs_done: int
    """0, or those before a resume."""
    begun: Begun
    """Steps of the next epoch before a resume."""
    time_s: float
    """Spent on them."""
    log: str | None
    """The record in the logs of the run that is resumed."""
    threads: int
    """Of this rank."""

    @property
    def network(self) -> Network:
        return self.trained.network

    @property
    def part(self) -> Partition:
        return self.trained.part

    @property
    def weights(self) -> FlatWeights:
        """What is trained."""
        return self.trained.weights


@dataclass(frozen=True)
class _Found:
    """What rank 0 found out and every rank gets."""

    content: bytes
    """The model to start from, serialized."""
    where: str
    train: LabelledFolder
    test: LabelledFolder | None
    run: int
    state: checkpoints.State | None
    """Of the checkpoint that is resumed."""


def make(settings: Settings, ranks: Ranks, say: Say, resume: bool = False) -> Plan:
    """Rank 0 reads folders, model and checkpoint; all ranks plan the same from that, or raise the same.

    Raises:
        BirdsonnxError: anything that cannot be carried out.
    """
    data, own = settings.data, settings.birdsonnx
    cache = ranks.together(lambda: own.cache_folder if own.views or not data.augments else None)
    found = ranks.first(lambda: _find(settings, resume, say))
    state = found.state
    sets = [found.train, *([] if found.test is None else [found.test])]
    same_inputs.require(ranks, sets, Path(found.where))
    source = model_file.parse(found.content, found.where)
    trainable = ranks.together(lambda: trainable_layers(source.metadata, own.trainable))
    network = ranks.together(lambda: Network(source, trainable))
    model = _of_this_run(source, found, trainable, settings)
    loss = ranks.together(lambda: _loss(settings, model, found.train))
    share = threads.share(ranks, own.threads)
    if share.note:
        say(share.note)
    decode = ranks.together(lambda: decoder(*model.input_size, data.transforms, data.grayscale))
    question = Question(network, *_timed(found, own.views or 1), decode, share.threads * ranks.size)
    before = None if state is None else state.settings.get("boundary")
    choice = ranks.first(lambda: boundary_choice.choose(question, cache, own.boundary, before, say))
    used = None if state is None else state.settings.get("computed_by", precision.BY_ONNXRUNTIME)
    half = own.feature_precision == "fp16" and cache is not None

    def divide(network: Network) -> Partition:
        return network.divide(choice.boundary, half)

    asked = precision.Question(
        settings, ranks, network, divide, loss, len(found.train.photos), share.threads, used
    )
    trained = precision.settled(asked)
    if trained.kernels is None:
        ranks.together(lambda: gradients.require(network, trained.refusal))
    trained.weights.set(trained.part.weights)
    optimizer = optimizers.build(settings.optimizer, trained.weights, share.threads)
    if state is not None:
        resuming.restore(optimizer, state)
    return Plan(
        model=model,
        train=found.train,
        test=found.test,
        decoder=decode,
        cache=cache,
        choice=choice,
        trained=trained,
        loss=loss,
        optimizer=optimizer,
        run=found.run,
        epochs_done=0 if state is None else state.epoch,
        begun=NOT_BEGUN if state is None else state.begun,
        time_s=0.0 if state is None else state.time_s,
        log=None if state is None else state.settings.get("log"),
        threads=share.threads,
    )


def _timed(found: _Found, views: int) -> tuple[int, list[Path]]:
    """How many photos, or views of them, there are in both sets, and the few that are timed."""
    train, test = found.train.photos, () if found.test is None else found.test.photos
    probed = [*list(train[:PROBED]) * views, *test[:PROBED]][:PROBED]
    return len(train) * views + len(test), [photo.path for photo in probed]


def _find(settings: Settings, resume: bool, say: Say) -> _Found:
    """Read what the settings name, and refuse what does not fit together; rank 0 only."""
    save = settings.checkpoints.save
    train, test = folders(settings.data, say)
    _require_outputs(settings, test)
    state = None
    run = 1
    if resume:
        if save is None:
            raise ConfigError("--resume needs checkpoints.save, the folder of the run's checkpoints")
        model, state = checkpoints.newest(Path(save), say)
        run = state.run
        resuming.require_same_run(state, settings, model.where)
        resuming.require_history(model, state)
        resuming.require_same_photos(state, train, model.where)
        steps = f" and batch {state.begun.steps} of the next" if state.begun.steps else ""
        say(f"resuming after epoch {state.epoch}{steps} from {model.where}")
    else:
        model = loading.to_train(settings, say)
        if save is not None:
            run = checkpoints.next_run(Path(save))
            _say_what_is_replaced(settings, Path(save), say)
    train = _as_classes_of(model, settings, train)
    if test is not None:
        test = fitted(test, train.classes, len(train.classes), train.where, say=say)
    return _Found(model.serialized(), model.where, train, test, run, state)


def _say_what_is_replaced(settings: Settings, save: Path, say: Say) -> None:
    names = checkpoints.replaced_by(save, settings.num_epochs, settings.checkpoints.interval)
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(
            f"{save}: {names[0]}{more} of an earlier training will be replaced; checkpoints.save names "
            "another folder, and --resume goes on with that training instead"
        )


def folders(data: Data, say: Say) -> tuple[LabelledFolder, LabelledFolder | None]:
    """The photos to train on and to test on. Raises DataError."""
    train = training_photos(data, say)
    if len(train.classes) < 2:
        raise DataError(f"{train.where} has one class folder; a classifier needs two or more")
    test = test_photos(data, say)
    if test is not None:  # before a model is read, which may take its time; its labels are settled then
        fitted(test, train.classes, len(train.classes), train.where, say=lambda _: None)
    return train, test


def _require_outputs(settings: Settings, test: LabelledFolder | None) -> None:
    """Raises ConfigError or DataError where what is asked for cannot come out of the run."""
    if settings.data.test_output_path is not None:
        if test is None:
            raise ConfigError(
                "neural_network.data.test_output_path: there is nothing to predict without test_input_path"
            )
        for name in names_of(test.photos):
            hdf5.require_storable(name)
    if settings.birdsonnx.output_layout == "table" and settings.data.test_output_path is None:
        raise ConfigError(
            "neural_network.birdsonnx.output_layout: no predictions are kept without data.test_output_path"
        )
    if settings.birdsonnx.quantize and settings.checkpoints.save is None:
        raise ConfigError(
            "neural_network.birdsonnx.quantize: there is no checkpoint without checkpoints.save"
        )
    own = settings.birdsonnx
    if own.calibrate and settings.checkpoints.save is None:
        raise ConfigError(
            "neural_network.birdsonnx.calibrate: there is no checkpoint without checkpoints.save"
        )
    if own.calibrate and test is None:
        raise ConfigError(
            "neural_network.birdsonnx.calibrate: there are no photos to calibrate on without "
            "data.test_input_path"
        )
    if own.feature_precision in ("bf16", "int8") and own.cache is False:
        raise ConfigError(
            f"neural_network.birdsonnx.feature_precision: {own.feature_precision} features are cached; "
            "remove cache false"
        )
    if own.views is not None and own.cache is False:
        raise ConfigError("neural_network.birdsonnx.views: views are cached features; remove cache false")
    if own.views is not None and not settings.data.augments:
        raise ConfigError(
            "neural_network.birdsonnx.views: no transform is random, so all views of a photo are alike; add "
            'one, such as {"random_horizontal_flip": 0.5}, or remove the key'
        )


def _as_classes_of(model: BirdModel, settings: Settings, train: LabelledFolder) -> LabelledFolder:
    """The training photos with the model's class indices. Raises DataError where the classes differ."""
    tag = f" --tag {train.tag}" if train.tag else ""
    mend = f"export a network for them: birdsonnx export --labels {train.root}{tag}"
    if settings.layers is not None:
        mend = f"set the units of the last layer in 'layers' to {len(train.classes)}"
    return fitted(train, model.metadata.classes, model.num_classes, model.where, mend)


def _of_this_run(
    model: BirdModel, found: _Found, trainable: tuple[str, ...], settings: Settings
) -> BirdModel:
    """The model with the metadata of this run; a history that is not resumed begins anew."""
    changes: dict[str, Any] = {} if found.state is not None else {"history": ()}
    metadata = model.metadata.having(
        classes=found.train.classes,
        trainable=trainable,
        transforms=settings.data.lasting_transforms,
        **changes,
    )
    return BirdModel(model.proto, metadata, model.where)


def _loss(settings: Settings, model: BirdModel, train: LabelledFolder) -> Loss:
    weight = settings.loss.weight
    if isinstance(weight, tuple) and len(weight) != model.num_classes:
        raise ConfigError(
            f"neural_network.loss.weight: {len(weight)} numbers for {model.num_classes} classes; give one "
            "for each"
        )
    return Loss.of(settings, np.bincount(labels_of(train.photos), minlength=model.num_classes))
