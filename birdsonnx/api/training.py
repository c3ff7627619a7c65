"""`birdsonnx.train`: the verb as a function."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdsonnx.api.calls import PathLike, joined_ranks
from birdsonnx.errors import ConfigError
from birdsonnx.reporting.console import Console
from birdsonnx.runtime import interruption

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings
    from birdsonnx.training.results import Outcome


def train(
    settings: "Settings | Mapping[str, Any] | PathLike", *, resume: bool = False, verbose: bool = False
) -> "Outcome":
    """Train a network as a config says, and keep the checkpoints and logs that it names.

    In the main thread a signal (Ctrl-C, SIGTERM) lets the step end, keeps where the training stands for
    `resume`, and raises KeyboardInterrupt.

    Args:
        settings: the config: its file, the JSON itself (`{"neural_network": {…}}`), or settings that were
            read.
        resume: go on from the newest checkpoint.
        verbose: print what the verb prints.

    Returns:
        Its `epochs` (losses, accuracies), the `checkpoints` that were written, and the `seconds` of each
        phase.

    Raises:
        ConfigError: what the config asks for does not exist.
        BirdsonnxError: it cannot be carried out, before the first epoch where possible.
    """
    from birdsonnx.reporting.training_log import TrainingLog
    from birdsonnx.training import run

    with interruption.handled(), joined_ranks() as all_ranks:
        read = all_ranks.first(lambda: _settings_of(settings))
        schedule = read.optimizer.lr_scheduler
        log = TrainingLog(
            Console(speaks=verbose and all_ranks.is_first),
            read.outfile,
            read.num_epochs,
            verbose=schedule is not None and schedule.verbose,
            speaks=all_ranks.is_first,
        )
        try:
            return run.train(read, all_ranks, log, resume)
        finally:
            log.close()


def _settings_of(settings: "Settings | Mapping[str, Any] | PathLike") -> "Settings":
    from birdsonnx.config import reading
    from birdsonnx.config.settings import Settings

    if isinstance(settings, Mapping):
        try:
            text = json.dumps(settings, default=os.fspath)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"settings: no JSON ({error})") from None
        read = reading.parse(text, "settings")
    else:
        read = settings if isinstance(settings, Settings) else reading.read(Path(settings))
    if read.data.input_path is None:
        raise ConfigError("neural_network.data.input_path: no photos to train on; this key is required")
    return read
