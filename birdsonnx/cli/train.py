"""`birdsonnx train`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import agreed, running, same_config
from birdsonnx.cli.options import Debug, Json
from birdsonnx.cli.predict import run_prediction
from birdsonnx.errors import ConfigError


def train(
    config: Annotated[Path | None, typer.Argument(help="The JSON config.")] = None,
    config_option: Annotated[
        Path | None, typer.Option("--config", help="The JSON config, as an option.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE inside neural_network: data.batch_size=32.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint in checkpoints.save.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a network as a config says, in one process or under mpirun.

    The config's checkpoints.load names the network. Without it, layers describe one, which starts from fresh
    weights. With both, the network of layers takes over the weights that fit."""
    with running(json, debug, ranks="all") as job:
        from dataclasses import asdict

        from birdsonnx.config import reading as configs
        from birdsonnx.inference.requests import Request

        ranks = job.ranks
        path = agreed(lambda: _one_config(config, config_option))
        settings = ranks.first(lambda: configs.read(path, overrides or ()))
        same_config(ranks, path)
        if settings.data.input_path is None:
            run_prediction(job, agreed(lambda: Request.from_config(settings)))
            return
        from birdsonnx.reporting.training_log import TrainingLog
        from birdsonnx.training import run

        schedule = settings.optimizer.lr_scheduler
        log = TrainingLog(
            job.console(),
            settings.outfile,
            settings.num_epochs,
            verbose=schedule is not None and schedule.verbose,
            speaks=job.speaks,
        )
        try:
            outcome = run.train(settings, ranks, log, resume)
        finally:
            log.close()
        job.result = {
            "epochs": [asdict(epoch) for epoch in outcome.epochs],
            "checkpoints": [str(path) for path in outcome.checkpoints],
            "seconds": outcome.seconds,
            "ranks": ranks.size,
        }
        seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in outcome.seconds.items())
        job.say(f"done: {seconds}")


def _one_config(positional: Path | None, option: Path | None) -> Path:
    if positional is not None and option is not None:
        raise ConfigError("two configs are given; give one")
    path = positional or option
    if path is None:
        raise ConfigError("no config given: birdsonnx train config.json")
    return path
