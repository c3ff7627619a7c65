"""`birdsonnx plot`."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from birdsonnx import artifacts
from birdsonnx.artifacts import commands
from birdsonnx.cli.job import Job, running
from birdsonnx.cli.options import Debug, Json, Overwrite
from birdsonnx.errors import ConfigError, DataError


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
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the loss and accuracy curves of a training, or what its random transforms do to photos."""
    with running(json, debug, ranks="first") as job:
        if outfile is not None and augmented is None:
            path = _plot_curves(job, outfile, output, overwrite)
        elif augmented is not None and outfile is None:
            path = _plot_augmented(job, augmented, output, overwrite)
        else:
            raise ConfigError("plot takes either an outfile or --augmented CONFIG")
        job.result["output"] = str(path)
        job.say(artifacts.written(path))
        if augmented is not None:
            job.say(f"next: birdsonnx train {shlex.quote(str(augmented))}")


def _plot_curves(job: Job, outfile: str, output: Path | None, overwrite: bool) -> Path:
    from birdsonnx.reporting import plots, training_log

    training_log.log_paths(outfile)  # or its words about what names no file
    if Path(outfile).is_dir():
        _refuse_folder(Path(outfile))
    path = output or Path(outfile).with_suffix(".png")
    plots.require_drawable(path)
    curves = training_log.read_curves(outfile)
    with _place(job, path, output is not None, ("plot", outfile), overwrite) as (path, record):
        plots.plot_curves(curves, path, Path(outfile).stem, record)
        return path


def _refuse_folder(folder: Path) -> NoReturn:
    """Raises DataError, which names the logs in the folder."""
    from birdsonnx.reporting.training_log import TRAIN_END

    logs = sorted(path for path in folder.glob(f"*{TRAIN_END}"))
    if not logs:
        raise DataError(f"{folder}: this is a folder without logs of a training; name the config's outfile")
    outfile = shlex.quote(str(logs[0]).removesuffix(TRAIN_END) + ".txt")
    raise DataError(f"{folder}: this is a folder; its logs are drawn by birdsonnx plot {outfile}")


def _plot_augmented(job: Job, config: Path, output: Path | None, overwrite: bool) -> Path:
    from birdsonnx.config import reading as configs
    from birdsonnx.reporting import augmentation, plots

    path = output or config.parent / f"{config.stem}_augmented.png"
    plots.require_drawable(path)
    shown = augmentation.preview(configs.read(config), job.say)
    with _place(job, path, output is not None, ("plot", "--augmented", str(config)), overwrite) as taken:
        path, record = taken
        plots.plot_preview(shown, path, config.name, record)
    job.result = {
        "photos": [row.name for row in shown.rows],
        "epochs": list(shown.epochs),
        "note": shown.note,
    }
    job.say(shown.note)
    return path


@contextmanager
def _place(
    job: Job, path: Path, is_named: bool, words: tuple[str, ...], overwrite: bool
) -> Iterator[tuple[Path, str]]:
    """Where the picture goes, and the record of its command: a name that was given is taken as it is."""
    from birdsonnx.reporting import plots

    made_by = commands.Command(words, list(words)).record(path.parent)
    if is_named:
        yield path, made_by
        return

    def names(number: int) -> list[Path]:
        return [commands.numbered(path, number)]

    with commands.taking(names, made_by, plots.command_of, job.say, overwrite) as place:
        yield place.paths[0], place.record
