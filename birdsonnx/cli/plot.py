"""`birdsonnx plot`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import Job, running
from birdsonnx.cli.options import Debug, Json
from birdsonnx.errors import ConfigError


def plot(
    outfile: Annotated[
        str | None, typer.Argument(help="The config's outfile; its _train and _test logs are read.")
    ] = None,
    augmented: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="Draw training photos instead, as the first epochs of this config see them.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The PNG (default: OUTFILE with .png, CONFIG with _augmented.png)."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the loss and accuracy curves of a training, or what its random transforms do to photos."""
    with running(json, debug, ranks="first") as job:
        if outfile is not None and augmented is None:
            path = _plot_curves(outfile, output)
        elif augmented is not None and outfile is None:
            path = _plot_augmented(job, augmented, output)
        else:
            raise ConfigError("plot takes either an outfile or --augmented CONFIG")
        job.result["output"] = str(path)
        job.say(f"wrote {path}")
        if augmented is not None:
            job.say(f"next: birdsonnx train {shlex.quote(str(augmented))}")


def _plot_curves(outfile: str, output: Path | None) -> Path:
    from birdsonnx.reporting import plots, training_log

    path = output or Path(outfile).with_suffix(".png")
    plots.require_drawable(path)
    curves = training_log.read_curves(outfile)
    plots.plot_curves(curves, path, Path(outfile).stem)
    return path


def _plot_augmented(job: Job, config: Path, output: Path | None) -> Path:
    from birdsonnx.config import reading as configs
    from birdsonnx.reporting import augmentation, plots

    path = output or config.with_name(f"{config.stem}_augmented.png")
    plots.require_drawable(path)
    shown = augmentation.preview(configs.read(config), job.say)
    plots.plot_preview(shown, path, config.name)
    job.result = {
        "photos": [row.name for row in shown.rows],
        "epochs": list(shown.epochs),
        "note": shown.note,
    }
    job.say(shown.note)
    return path
