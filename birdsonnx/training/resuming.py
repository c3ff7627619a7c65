"""Going on with a run: what the config must share with it, and its state put back."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from birdsonnx.config.schedules import Cosine
from birdsonnx.config.settings import Settings
from birdsonnx.errors import TrainingError
from birdsonnx.images.folders import LabelledFolder
from birdsonnx.images.photo_list import names_of
from birdsonnx.model.model_file import BirdModel
from birdsonnx.training.checkpoints import State
from birdsonnx.training.epochs import Epoch, stops_early
from birdsonnx.training.optimizers import Optimizer


def require_same_run(state: State, settings: Settings, where: str) -> None:
    """Raises TrainingError where the config is that of another run; `where` names the checkpoint."""
    for name, value in shared_settings(settings).items():
        if state.settings.get(name) != value:
            raise TrainingError(
                f"{where}: its run had {name} {state.settings.get(name)!r}, the config has {value!r}; "
                "resume with the same, or start a new run from it with checkpoints.load"
            )


def require_history(model: BirdModel, state: State) -> None:
    """Raises TrainingError where a checkpoint's model and state disagree about how far the run was."""
    epochs = len(model.metadata.history)
    if epochs != state.epoch:
        raise TrainingError(
            f"{model.where}: its history has {epochs} epochs, its state says {state.epoch}; start a new run "
            "from it with checkpoints.load"
        )


def require_same_photos(state: State, train: LabelledFolder, where: str) -> None:
    """Raises TrainingError where photos came or went: every batch would be another one."""
    before, now = state.settings.get("photos"), photos_of(train)
    if before is not None and before != now:
        raise TrainingError(
            f"{where}: its run had {before[0]} photos in {train.where}, now there are {now[0]}"
            f"{' with other names' if before[0] == now[0] else ''}; put them back, or start a new run from "
            "it with checkpoints.load"
        )


def over(settings: Settings, history: Sequence[Mapping[str, Any]]) -> str | None:
    """Why nothing is left of a run that did the epochs in `history`; None where something is."""
    done = [Epoch(**entry) for entry in history]
    if len(done) >= settings.num_epochs:
        return f"all {settings.num_epochs} epochs of its run are done"
    if done and stops_early(done, settings.birdsonnx.early_stopping):
        return f"its run ended after epoch {len(done)}, since the test loss fell no more (early_stopping)"
    return None


def photos_of(train: LabelledFolder) -> list[Any]:
    """How many there are, and a hash of their names."""
    digest = hashlib.sha256()
    for place, name in enumerate(sorted(names_of(train.photos))):
        digest.update(os.fsencode(f"\n{name}" if place else name))
    return [len(train.photos), digest.hexdigest()]


def shared_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide the weights: a resumed run must share them with the one it continues."""
    data, own = settings.data, settings.birdsonnx
    shared: dict[str, Any] = {
        "data.input_path": str(data.input_path),
        "data.batch_size": data.batch_size,
        "data.training_tag": data.training_tag,
        "data.grayscale": data.grayscale or None,
        "data.transforms": None if data.transforms is None else [step.as_json() for step in data.transforms],
        "optimizer": settings.optimizer.model_dump(mode="json"),
        "loss": settings.loss.model_dump(mode="json"),
    }
    if isinstance(settings.optimizer.lr_scheduler, Cosine):  # its rates follow from the number of epochs
        shared["num_epochs"] = settings.num_epochs
    return {
        **shared,
        "birdsonnx.seed": own.seed,
        "birdsonnx.label_smoothing": own.label_smoothing,
        "birdsonnx.clip_norm": own.clip_norm,
        "birdsonnx.feature_precision": own.feature_precision,
        "birdsonnx.views": own.views,
        "birdsonnx.precision": None if own.precision == "fp32" else own.precision,
        "birdsonnx.exchange_precision": None if own.exchange_precision == "fp32" else own.exchange_precision,
        "birdsonnx.trainable": own.trainable and list(own.trainable),
    }


def restore(optimizer: Optimizer, state: State) -> None:
    """Give an optimizer the state of a checkpoint. Raises TrainingError where it is another network's."""
    for name, values in optimizer.state.items():
        if name not in state.arrays or state.arrays[name].shape != values.shape:
            error = TrainingError(
                f"epoch {state.epoch} of run {state.run}: its optimizer state is that of another version or "
                "network; start a new run from its .onnx with checkpoints.load"
            )
            error.agreed = True  # rank 0 gave every rank the same state
            raise error
    optimizer.restore(state.arrays, state.steps)
