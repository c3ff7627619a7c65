"""`birdsonnx train`."""

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from birdsonnx.cli.job import Job, agreed, running, same_config
from birdsonnx.cli.next_steps import Again, after_training, as_lines
from birdsonnx.cli.options import (
    Arch,
    Debug,
    Epochs,
    FeaturePrecisionOption,
    Json,
    LearningRate,
    Network,
    Overwrite,
    StartWeights,
    Trainable,
    TrainingBatch,
    choices_of,
)
from birdsonnx.cli.predict import run_prediction
from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings
    from birdsonnx.training.results import Outcome

Config = Annotated[Path | None, typer.Argument(help="The JSON config.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="The JSON config, as an option.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Train without a config on the photos in DATA/train/CLASS/…, and test on those in DATA/valid. "
        "The options from --arch to --precision are for this."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE inside neural_network: data.batch_size=32."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the newest checkpoint in checkpoints.save.")
]

INSTEAD = {
    "--arch": "the network is what checkpoints.load names; `birdsonnx export --arch` makes one",
    "--weights": "the network is what checkpoints.load names; `birdsonnx export --weights` makes one",
    "--model": "--set checkpoints.load={}",
    "--epochs": "--set num_epochs={}",
    "--batch-size": "--set data.batch_size={}",
    "--learning-rate": "--set optimizer.learning_rate={}",
    "--trainable": "--set 'birdsonnx.trainable=[…]'",
    "--precision": "--set birdsonnx.feature_precision={}",
}
"""What does with a config what an option does with --data."""


def train(
    config: Config = None,
    config_option: ConfigOption = None,
    data: Data = None,
    arch: Arch = None,
    model: Network = None,
    weights: StartWeights = None,
    epochs: Epochs = None,
    batch_size: TrainingBatch = None,
    learning_rate: LearningRate = None,
    trainable: Trainable = None,
    precision: FeaturePrecisionOption = None,
    overrides: Overrides = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a network on photos in class folders: with --data, or as a config says; in one process or under
    mpirun.

    The config's checkpoints.load names the network. Without it, layers describe one, which starts from fresh
    weights. With both, the network of layers takes over the weights that fit."""
    with running(json, debug, ranks="all") as job:
        from birdsonnx.config import reading as configs

        ranks = job.ranks
        given: dict[str, Any] = {"--arch": arch, "--weights": weights, "--model": model, "--epochs": epochs}
        given |= {"--batch-size": batch_size, "--learning-rate": learning_rate}
        given |= {"--trainable": trainable, "--precision": precision}
        if data is None:
            path = agreed(lambda: _one_config(config, config_option, given))
            settings = ranks.first(lambda: configs.read(path, overrides or ()))
            same_config(ranks, path)
            _run(job, settings, Again(path, tuple(overrides or ()), ranks.size), resume, overwrite)
            return
        from birdsonnx.training import starting

        agreed(lambda: _require_new(data, config or config_option, resume))
        choices = agreed(lambda: choices_of(epochs, batch_size, learning_rate, trainable, precision))
        request = starting.Request(data, arch, model, weights, choices, overrides or ())
        path = ranks.first(lambda: starting.new_run(request, job.say))
        settings = ranks.first(lambda: configs.read(path))
        with starting.unless_refused(path) if ranks.is_first else nullcontext():
            _run(job, settings, Again(path, (), ranks.size), resume=False, overwrite=overwrite)


def _run(job: Job, settings: "Settings", again: Again, resume: bool, overwrite: bool) -> None:
    """Train; a config without training photos predicts."""
    if settings.data.input_path is None:
        from dataclasses import replace

        from birdsonnx.inference.requests import Request

        if resume:
            agreed(_refuse_resume)
        request = agreed(lambda: Request.from_config(settings))
        asked = replace(request, overwrite=overwrite, config=again.config, overrides=again.overrides)
        run_prediction(job, asked)
        return
    from birdsonnx.reporting.training_log import TrainingLog
    from birdsonnx.runtime.interruption import Interrupted
    from birdsonnx.training import run

    schedule = settings.optimizer.lr_scheduler
    log = TrainingLog(
        job.console(),
        settings.outfile,
        settings.num_epochs,
        verbose=schedule is not None and schedule.verbose,
        speaks=job.speaks,
        overwrite=overwrite,
    )
    typed = (str(again.config), *(word for each in again.overrides for word in ("--set", each)))
    command = run.command_of(settings, typed)
    try:
        outcome = run.train(settings, job.ranks, log, resume, command)
    except Interrupted as interrupted:
        kept = interrupted.agreed and settings.checkpoints.save is not None
        raise interrupted.adding(f"to go on: {again.command(resume=resume or kept)}") from None
    finally:
        log.close()
    _show(job, settings, again, outcome)


def _show(job: Job, settings: "Settings", again: Again, outcome: "Outcome") -> None:
    from dataclasses import asdict

    from birdsonnx.runtime.phases import longest

    commands = after_training(again.config, settings, outcome)
    job.result = {
        "config": str(again.config),
        "epochs": [asdict(epoch) for epoch in outcome.epochs],
        "checkpoints": [str(path) for path in outcome.checkpoints],
        "seconds": outcome.seconds,
        "phases": outcome.phases,
        "ranks": job.ranks.size,
        "next": commands,
    }
    if not outcome.epochs:
        more = again.with_more_epochs(settings, outcome.checkpoints[-1])
        job.say(f"nothing is left to train; to train more: {more}")
        return
    seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in outcome.seconds.items())
    if job.ranks.size > 1:
        job.say(f"time, the longest of all ranks: {longest(outcome.phases)}")
    job.say(f"done: {seconds}", *as_lines(commands))


def _one_config(positional: Path | None, option: Path | None, given: Mapping[str, Any]) -> Path:
    """The config that is named. Raises ConfigError, also for options that mean nothing beside one."""
    if positional is not None and option is not None:
        raise ConfigError("two configs are given; give one")
    path = positional or option
    if path is None:
        raise ConfigError(
            "no photos and no config given: birdsonnx train --data DATA, or birdsonnx train config.json"
        )
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} is for --data; with a config: {INSTEAD[name].format(value)}")
    if path.is_dir() and not (path / "config.json").is_file():
        _refuse_folder(path)
    return path


def _refuse_folder(path: Path) -> NoReturn:
    """Photos where a config is expected. Raises ConfigError or DataError, which say what to do."""
    from birdsonnx.images import sets

    sets.find(path)  # or its words about what is there instead
    raise ConfigError(
        f"{path}: this is a folder, and a config is a JSON file; without one: birdsonnx train --data "
        f"{shlex.quote(str(path))}"
    )


def _require_new(data: Path, config: Path | None, resume: bool) -> None:
    """Raises ConfigError where --data comes with what names a training already."""
    if config is not None:
        raise ConfigError(f"--data {data} and the config {config} are given; give one")
    if resume:
        from birdsonnx.model.checkpoint_names import numbered_runs

        newest = (*numbered_runs().values(), Path("runs/train_1"))[-2:][0]
        raise ConfigError(
            "--data starts a new run; --resume goes on with one, by its config: birdsonnx train "
            f"{newest / 'config.json'} --resume"
        )


def _refuse_resume() -> NoReturn:
    raise ConfigError("--resume goes on with a training, and this config has no input_path to train on")
