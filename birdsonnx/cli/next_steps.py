"""What to do next, as commands to type."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.runtime.launchers import launching

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings
    from birdsonnx.training.results import Outcome


def as_lines(commands: Sequence[str]) -> list[str]:
    """A command a line, under one title."""
    return [f"{'next:' if number == 0 else '':<7}{command}" for number, command in enumerate(commands)]


def after_export(file: Path, is_trainable: bool, labels: Path | None) -> list[str]:
    """What to do with a network that was exported for the classes of `labels`: training, where it has layers
    to train."""
    from birdsonnx.images import sets

    if not is_trainable:
        return [f"birdsonnx predict PHOTOS --model {shlex.quote(str(file))}"]
    is_set = labels is not None and labels.name.lower() in sets.TRAINING
    data = str(labels.parent) if is_set and labels is not None else "DATA"
    return [shlex.join(["birdsonnx", "train", "--data", data, "--model", str(file)])]


def after_calibration(file: Path, validate: Path, has_known: bool) -> list[str]:
    """What to do with a calibrated model: to name photos, and to evaluate it on the set `test` beside the
    photos that it was calibrated with, if there is one."""
    commands = [["predict", "PHOTOS", "--model", str(file)]]
    held_out = validate.parent / "test"
    if held_out.is_dir() and held_out != validate:
        others = ["--unknown", "OTHERS"] if has_known else []
        commands.append(["evaluate", str(held_out), "--model", str(file), *others])
    return [shlex.join(["birdsonnx", *words]) for words in commands]


@dataclass(frozen=True)
class Again:
    """How a training is started once more."""

    config: Path
    overrides: Sequence[str]
    """Of --set."""
    ranks: int

    def command(self, *more: str, resume: bool) -> str:
        """With `more` words."""
        start = launching(self.ranks)
        overrides = [word for override in self.overrides for word in ("--set", override)]
        end = ["--resume"] if resume else []
        return shlex.join([*start, "birdsonnx", "train", str(self.config), *overrides, *more, *end])

    def with_more_epochs(self, settings: "Settings", last: Path) -> str:
        """Resumed with twice as many epochs; where the number of epochs is part of the run, a new run from
        its last checkpoint."""
        schedule = settings.optimizer.lr_scheduler
        if settings.birdsonnx.early_stopping or (schedule is not None and schedule.type == "Cosine"):
            words = ("--set", f"checkpoints.load={last}", "--set", "checkpoints.save=more_checkpoints/")
            return self.command(*words, resume=False)
        return self.command("--set", f"num_epochs={2 * settings.num_epochs}", resume=True)


def after_training(config: Path, settings: "Settings", outcome: "Outcome") -> list[str]:
    """What to do with the last checkpoint of a training, if it kept one."""
    from birdsonnx.model.checkpoint_names import INT8_SUFFIX

    models = [path for path in outcome.checkpoints if not path.name.endswith(INT8_SUFFIX)]
    if not models:
        return []
    model, data = str(models[-1]), settings.data
    commands = [["predict", "PHOTOS", "--model", model]]
    held_out = Path(str(data.input_path)).parent / "test"
    if data.training_tag is None and held_out.is_dir():
        commands.append(["evaluate", str(held_out), "--model", model])
    elif data.test_folder is not None:
        tag = ["--tag", data.test_tag] if data.test_tag else []
        commands.append(["evaluate", str(data.test_folder), *tag, "--model", model])
    if not settings.birdsonnx.quantize:
        tag = ["--tag", data.training_tag] if data.training_tag else []
        commands.append(["quantize", model, "--calibrate", str(data.input_path), *tag])
    in_a_run = Path(str(settings.checkpoints.save)).parent == config.parent != Path()
    commands.append(["report", str(config.parent if in_a_run else config)])
    return [shlex.join(["birdsonnx", *words]) for words in commands]
