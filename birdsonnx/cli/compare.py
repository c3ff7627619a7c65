"""`birdsonnx compare`."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdsonnx.cli.job import CANNOT, Job, agreed, running, same_config
from birdsonnx.cli.options import Debug, Json, seconds_of
from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings
    from birdsonnx.training.audience import TrainingAudience
    from birdsonnx.training.comparing import Comparison, Listening

Config = Annotated[str | None, typer.Argument(metavar="CONFIG", help="The JSON config.")]
More = Annotated[list[str] | None, typer.Argument(metavar="ARCH", help="More networks of --arch.")]
Arch = Annotated[
    list[str] | None,
    typer.Option(
        help="Networks of keras.applications, with commas or spaces between them: resnet50 mobilenetv2."
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="imagenet (Keras downloads them), none (random), or a folder or 'PATTERN' of files such as "
        "resnet50_notop.h5."
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE inside neural_network: num_epochs=20.")
]


def compare(
    config: Config = None,
    more: More = None,
    arch: Arch = None,
    weights: Weights = "imagenet",
    overrides: Overrides = None,
    seconds: Annotated[
        str, typer.Option(metavar="SECONDS", help="Time to measure the speed of each network.")
    ] = "5",
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy over images/s as PNG.", metavar="FILE")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a new head on several networks and compare them: accuracy, speed, file size.

    Each comes in the place of the config's network, with all its other settings; a resize or center_crop of
    the config is the size of its input. Results lie in runs/compare_<N>/; those that no other beats in
    accuracy and speed are marked."""
    with running(json, debug, ranks="all") as job:
        from birdsonnx.training import comparing

        words = [*([] if config is None else [config]), *(more or ())]
        path, archs = agreed(lambda: _parted(words, arch or ()))
        spent = agreed(lambda: seconds_of(seconds))
        if plot is not None:
            from birdsonnx.reporting import plots

            agreed(lambda: plots.require_drawable(plot))
        same_config(job.ranks, path)
        request = comparing.Request(path, archs, weights, tuple(overrides or ()), spent)
        found = comparing.compare(request, job.ranks, job.console(), _listening(job))
        if not job.speaks:
            return
        job.refuse(found.refused)
        job.result = found.as_json()
        if not found.rows:
            job.code = CANNOT
            return
        _report(job, found, plot)


def _report(job: Job, found: "Comparison", plot: Path | None) -> None:
    from birdsonnx import artifacts
    from birdsonnx.reporting import comparison
    from birdsonnx.training.comparing import RESULT, TABLE

    written = [f"wrote {found.folder / name}" for name in (RESULT, TABLE)]
    if plot is not None:
        from birdsonnx.reporting import plots

        plots.plot_comparison(found, plot, f"{found.config}: {found.test_photos:,} test photos")
        written.append(artifacts.written(plot))
    job.say("", *comparison.comparison_lines(found), *written)
    job.say(f"next: birdsonnx predict PHOTOS --model {shlex.quote(str(found.rows[0].model))}")


def _parted(words: Sequence[str], option: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """The config and the networks. What follows the first network after `--arch` comes without the option's
    name, so among the arguments. Raises ConfigError."""
    from birdsonnx.keras_io import architectures

    known = {name.lower() for name in architectures.DEFAULT_SIZES}
    archs = [name.strip() for text in option for name in text.split(",") if name.strip()]
    others: list[str] = []
    for word in words:
        names = [name.strip() for name in word.split(",") if name.strip()]
        if (names and all(name.lower() in known for name in names)) or (others and not Path(word).is_file()):
            archs += names
        else:
            others.append(word)
    if len(others) != 1:
        what = f"{len(others)} configs are given ({', '.join(others)})" if others else "no config is given"
        raise ConfigError(f"{what}: birdsonnx compare config.json --arch resnet50 mobilenetv2")
    if not archs:
        raise ConfigError("no network is given: --arch resnet50 mobilenetv2; export --arch list names all")
    return Path(others[0]), tuple(archs)


def _listening(job: Job) -> "Listening":
    """A training's logs are written, its lines are not shown."""

    @contextmanager
    def listening(settings: "Settings") -> "Iterator[TrainingAudience]":
        from birdsonnx.reporting.console import Console
        from birdsonnx.reporting.training_log import TrainingLog

        silent = Console(job.speaks, json=True)
        log = TrainingLog(silent, settings.outfile, settings.num_epochs, False, job.speaks)
        try:
            yield log
        finally:
            log.close()

    return listening
