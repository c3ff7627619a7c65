"""`birdsonnx init`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import running
from birdsonnx.cli.next_steps import as_lines
from birdsonnx.cli.options import (
    Arch,
    Debug,
    Epochs,
    FeaturePrecisionOption,
    Json,
    LearningRate,
    Network,
    StartWeights,
    Trainable,
    TrainingBatch,
    choices_of,
)


def init(
    data: Annotated[Path, typer.Argument(help="Folder with train/CLASS/… and valid/CLASS/… in it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The config to write.")] = Path(
        "config.json"
    ),
    arch: Arch = None,
    model: Network = None,
    weights: StartWeights = None,
    epochs: Epochs = None,
    batch_size: TrainingBatch = None,
    learning_rate: LearningRate = None,
    trainable: Trainable = None,
    precision: FeaturePrecisionOption = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the config that `train --data` would use, to edit it first."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx.training import starting

        choices = choices_of(epochs, batch_size, learning_rate, trainable, precision)
        request = starting.Request(data, arch, model, weights, choices)
        commands = starting.config_to_edit(request, output, job.say)
        job.result = {"output": str(output), "next": commands}
        job.say(f"wrote {output}", *as_lines(commands))
