"""The command line: parses, calls one function, prints, exits.

Exit codes: 0 done; 1 done, but some inputs were refused (listed); 2 the request cannot be carried out.
Nothing heavy is imported at module level: `--help` must answer at once.
"""

import json as json_format
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from birdsonnx import __version__
from birdsonnx.errors import BirdsonnxError, ConfigError

if TYPE_CHECKING:
    from birdsonnx.inference.requests import Request
    from birdsonnx.reporting.console import Console
    from birdsonnx.runtime.ranks import Ranks

T = TypeVar("T")

app = typer.Typer(
    name="birdsonnx",
    help="From a Keras classifier and folders of photos to one self-contained ONNX file that names birds.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads per rank (default: its share of the cores, at most OMP_NUM_THREADS)."),
]

Tag = Annotated[
    str | None,
    typer.Option(help="Name of the folders, anywhere below, that hold the class folders (training_tag's)."),
]

DONE, SOME_REFUSED, CANNOT = 0, 1, 2

ONLY_TO_ONNX = (
    "arch",
    "weights",
    "size",
    "channels",
    "classes",
    "labels",
    "preprocess",
    "opset",
    "seed",
    "save_layers",
    "tag",
)
"""Options of an export that mean nothing on the way back to Keras."""
LARGEST_BATCH = 1024
"""Of a benchmark: beyond this a batch is a slip of the hand, and takes 10 GB with ResNet50."""


class Job:
    """One running verb: who prints, what goes into the JSON object, how it exits."""

    def __init__(self, json: bool) -> None:
        self.json = json
        self.result: dict[str, Any] = {}
        self.code = DONE
        self.ranks: Ranks | None = None

    @property
    def speaks(self) -> bool:
        return self.ranks is None or self.ranks.is_first

    def join_ranks(self) -> "Ranks":
        """The MPI ranks of this run."""
        from birdsonnx.runtime import ranks

        self.ranks = ranks.join()
        return self.ranks

    def console(self) -> "Console":
        from birdsonnx.reporting.console import Console

        return Console(self.speaks, self.json)

    def say(self, *lines: str) -> None:
        """Lines for people on stdout; silent under --json and on other ranks."""
        if self.speaks and not self.json:
            for line in lines:
                print(line)

    def fail(self, message: str, code: int = CANNOT) -> None:
        prefix = (
            f"birdsonnx: rank {self.ranks.rank}: " if self.ranks and self.ranks.size > 1 else "birdsonnx: "
        )
        print(prefix + _printable(message), file=sys.stderr, flush=True)
        if self.json:
            self.result = {"error": message}
        self.code = code


@contextmanager
def running(json: bool, debug: bool) -> Iterator[Job]:
    """Run a verb's body: errors become one line and an exit code, results one JSON object."""
    job = Job(json)
    try:
        yield job
    except BirdsonnxError as error:
        if debug:
            raise
        if error.agreed:  # every rank has it: the first speaks, all leave
            job.code = CANNOT
            if job.speaks and job.ranks is not None:
                print(f"birdsonnx: {_printable(str(error))}", file=sys.stderr, flush=True)
                job.result = {"error": str(error)}
        else:
            job.fail(str(error))
            _abort(job)
    except KeyboardInterrupt:
        job.fail("interrupted", 130)
        _abort(job)
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        job.code = 141
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())
        job.fail(f"internal error: {type(error).__name__}: {reason}; --debug shows where")
        _abort(job)
    if job.json and job.speaks:
        print(json_format.dumps(job.result, default=str))
    raise typer.Exit(job.code)


def _abort(job: Job) -> None:
    if job.ranks is not None and job.ranks.size > 1:
        job.ranks.abort(job.code)


def _printable(text: str) -> str:
    """The text with undecodable file name bytes shown as they are in repr."""
    return text.encode(errors="backslashreplace").decode()


def _version(value: bool) -> None:
    if value:
        print(f"birdsonnx {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example: birdsonnx export --weights resnet50_notop.h5 --labels data/train -o models/birds.onnx"
)
def export(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A Keras .h5 or .keras full model (or none: --arch, --weights); the .onnx for --to keras."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write (default: models/<arch>_birds.onnx, or SOURCE with .keras).",
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(help="onnx, or keras: put an .onnx's weights back into the network of --layers.")
    ] = "onnx",
    arch: Annotated[
        str | None,
        typer.Option(
            help="Network of keras.applications, built without SOURCE (default: resnet50); 'list' names all."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet (Keras' download), none (random), or a weights file.")
    ] = "imagenet",
    layers: Annotated[
        Path | None,
        typer.Option(
            help="Keras 2 or 3 JSON of the network, or an array of layers; weights by name from SOURCE."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Input of --arch, such as 160 or 192x160 (width first; default: the network's own)."
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(help="Channels of --arch: 3, or 1 for grayscale (not imagenet)."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Number of classes of the new head (default 400).")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of class folders that names and counts the classes.")
    ] = None,
    tag: Tag = None,
    preprocess: Annotated[
        str, typer.Option(help="auto (recognised by the layers), caffe, torch, tf, unit or none.")
    ] = "auto",
    opset: Annotated[int, typer.Option(help="ONNX opset, 13 to 18.")] = 17,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights that start fresh.")] = 0,
    save_layers: Annotated[
        Path | None, typer.Option(help="Also write the network as Keras JSON, for the config's 'layers'.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert a Keras network to one self-contained ONNX file, or back, and compare both."""
    with running(json, debug) as job:
        from birdsonnx.keras_io import architectures
        from birdsonnx.keras_io import export as exporting

        if _direction(to) == "keras":
            _refuse_options(context, ONLY_TO_ONNX, "--to keras")
            _export_to_keras(job, source, layers, output)
            return
        if arch == "list":
            job.result = {"architectures": list(architectures.DEFAULT_SIZES)}
            job.say(*architectures.DEFAULT_SIZES)
            return
        request = exporting.Request(
            source=source,
            output=output,
            arch=arch,
            weights=weights,
            layers=layers,
            size=size,
            channels=channels,
            classes=classes,
            labels=labels,
            preprocess=preprocess,
            opset=opset,
            seed=seed,
            save_layers=save_layers,
            tag=tag,
        )
        converted = exporting.export(request)
        metadata, rewritten = converted.model.metadata, converted.rewritten
        job.result = {
            "output": str(request.file),
            "classes": converted.model.num_classes,
            "preprocessing": metadata.preprocessing.name,
            "trainable": list(metadata.trainable),
            "parameters": vars(metadata.parameters),
            "parity": converted.parity.differences,
            "rewrites": rewritten,
            "notes": converted.notes,
        }
        job.say(
            *converted.notes,
            f"preprocessing  {metadata.preprocessing.name}",
            f"rewrites       {', '.join(f'{name} {count}' for name, count in rewritten.items() if count)}",
            f"parity         {converted.parity}",
            f"wrote          {request.file} ({converted.model.num_classes} classes, "
            f"trainable: {', '.join(metadata.trainable) or 'nothing'})",
        )


def _export_to_keras(job: Job, source: Path | None, layers: Path | None, output: Path | None) -> None:
    from birdsonnx.keras_io import export as exporting

    if source is None or layers is None:
        raise ConfigError(
            "--to keras needs an .onnx and its network: "
            "birdsonnx export --to keras birds.onnx --layers layers.json"
        )
    output = output or source.with_suffix(".keras")
    returned = exporting.to_keras(exporting.BackToKeras(source, layers, output))
    job.result = {
        "output": str(output),
        "preprocessing": returned.preprocessing.as_json(),
        "parity": returned.parity.differences,
    }
    job.say(
        f"preprocessing  {returned.preprocessing.name}; not in the Keras file, its input must have it",
        f"parity         {returned.parity}",
        f"wrote          {output}",
    )


@app.command(epilog="Example: OMP_NUM_THREADS=2 mpirun -np 4 birdsonnx train config_train.json")
def train(
    config: Annotated[Path | None, typer.Argument(help="The JSON config.")] = None,
    config_option: Annotated[Path | None, typer.Option("--config", help="The same, as an option.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE inside neural_network: data.batch_size=32.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in checkpoints.save.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the layers of a network that a config names or describes, alone or under mpirun.

    checkpoints.load names the network; layers alone describe one to train from fresh weights; both: the
    network of layers, with the weights that fit."""
    with running(json, debug) as job:
        from dataclasses import asdict

        from birdsonnx.config import reading as configs
        from birdsonnx.inference.requests import request_of

        ranks = job.join_ranks()
        path = _agreed(lambda: _one_config(config, config_option))
        settings = ranks.first(lambda: configs.read(path, overrides or ()))
        if settings.data.input_path is None:
            _predict(job, _agreed(lambda: request_of(settings)))
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


@app.command(epilog="Example: birdsonnx predict test_samples/ -o predictions/")
def predict(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT...", help="Photos, folders, glob patterns.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The .onnx (default: the newest checkpoint under model_checkpoints_save/)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Take model, input, output and transforms from a JSON config.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for output_1.h5 (default predictions/).")
    ] = None,
    threads: Threads = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Photos per run of a thread (default: as tuned; else 4, int8 up to 8); changes speed only.",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or int8: what the model must be (default: whatever it is).")
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="First measure how this machine runs the model fastest; remembered."),
    ] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show per photo.")] = 1,
    csv: Annotated[Path | None, typer.Option(help="Also write name, class, probability as CSV.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Name photos; keep the log-probabilities in predictions/output_1.h5."""
    with running(json, debug) as job:
        from birdsonnx.config import reading as configs
        from birdsonnx.inference.requests import Request, request_of

        ranks = job.join_ranks()
        options: dict[str, Any] = {
            "inputs": inputs,
            "model": model,
            "output": output,
            "threads": threads,
            "per_run": batch_size,
            "precision": _agreed(lambda: _precision(precision)),
            "tune": tune,
            "top_k": top_k,
            "csv": csv,
        }
        if config is not None:
            settings = ranks.first(lambda: configs.read(config))
            request = _agreed(lambda: request_of(settings, **options))
        else:
            given = {name: value for name, value in options.items() if value is not None}
            request = Request(**{"inputs": [], "output": Path("predictions"), **given})
        _predict(job, request)


def _predict(job: Job, request: "Request") -> None:
    from birdsonnx.inference import prediction
    from birdsonnx.inference import run as requests

    assert job.ranks is not None
    summary, where = requests.predict(request, job.ranks, job.console())
    if not job.speaks:
        return
    total = summary.photos + len(summary.refused)
    job.result = {
        "model": where,
        "photos": summary.photos,
        "refused": summary.refused,
        "seconds": summary.seconds,
        "images_per_second": summary.photos / summary.seconds,
        "output": summary.output,
        "csv": summary.csv,
        "predictions": summary.shown if total <= prediction.SHOWN else None,
        "counts": summary.counts,
    }
    if total <= prediction.SHOWN:
        width = max((len(entry["name"]) for entry in summary.shown), default=0)
        for entry in summary.shown:
            top = "   ".join(f"{name} {probability:.4f}" for name, probability in entry["top"])
            job.say(_printable(f"{entry['name']:<{width}}  {top}"))
    else:
        for name, count in sorted(summary.counts.items(), key=lambda item: (-item[1], item[0]))[:20]:
            job.say(f"{count:>7} x {name}")
        if len(summary.counts) > 20:
            job.say(f"{'':>7}   and {len(summary.counts) - 20} more classes")
    for refusal in summary.refused:
        print(f"birdsonnx: refused: {_printable(refusal)}", file=sys.stderr)
    where_to = f" -> {summary.output}" if summary.output else ""
    job.say(
        f"{summary.photos} photos in {summary.seconds:.2f} s "
        f"({summary.photos / summary.seconds:.1f} images/s){where_to}"
        + (f", {len(summary.refused)} refused" if summary.refused else "")
    )
    if summary.refused:
        job.code = SOME_REFUSED


@app.command(
    epilog="Example: birdsonnx evaluate data/test --model model_checkpoints_save/model_checkpoint_6.onnx"
)
def evaluate(
    target: Annotated[Path, typer.Argument(help="A folder of class folders, or an output_*.h5.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="The .onnx for a folder (default: the newest checkpoint under model_checkpoints_save/)."
        ),
    ] = None,
    tag: Tag = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of name,class for an .h5 that does not tell.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the per-class table and confusion matrix.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the confusion matrix as PNG.")] = None,
    threads: Threads = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Accuracy, top-5, loss, per-class table and confusion matrix."""
    with running(json, debug) as job:
        from birdsonnx.inference import run as requests
        from birdsonnx.reporting import tables

        ranks = job.join_ranks()
        if target.is_dir():
            found, refused = requests.evaluate_folder(target, model, threads, ranks, job.console(), tag)
        else:
            found, refused = ranks.first(lambda: requests.evaluate_file(target, labels, tag)), []
        if not job.speaks:
            return
        for refusal in refused:
            print(f"birdsonnx: refused: {_printable(refusal)}", file=sys.stderr)
        if found is None:
            job.result = {"refused": refused}
            job.code = CANNOT
            return
        job.result = {**found.as_json(), "classes": list(found.classes), "refused": refused}
        job.code = SOME_REFUSED if refused else DONE
        if csv is not None:
            tables.write_evaluation(found, csv)
        if plot is not None:
            from birdsonnx.reporting import plots

            title = f"{target}: accuracy {found.accuracy:.4f}"
            plots.plot_confusion(found.confusion, found.classes, plot, title)
        job.say(*tables.evaluation_lines(found), *(f"wrote {path}" for path in (csv, plot) if path))


@app.command(
    epilog="Example: birdsonnx quantize model_checkpoints_save/model_checkpoint_6.onnx "
    "--calibrate data/train --validate data/valid"
)
def quantize(
    model: Annotated[Path, typer.Argument(help="A float32 birdsonnx .onnx.")],
    calibrate: Annotated[
        Path, typer.Option(help="Photos that show what the network will see, best the training folder.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The .onnx to write (default: MODEL as .int8.onnx).")
    ] = None,
    photos: Annotated[
        int, typer.Option(min=1, help="Photos to calibrate with, drawn evenly over the folders.")
    ] = 128,
    method: Annotated[
        str,
        typer.Option(help="Ranges by minmax, entropy or percentile (the last two: minutes, much memory)."),
    ] = "minmax",
    validate: Annotated[
        Path | None, typer.Option(help="Class folders to measure the accuracy on, before and after.")
    ] = None,
    tag: Tag = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Accuracy that --validate lets it cost; beyond: not written.")
    ] = 0.01,
    threads: Threads = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make an int8 model: about 3 times as fast on CPUs with VNNI or AMX, a quarter of the size."""
    with running(json, debug) as job:
        from birdsonnx.inference import quantizing
        from birdsonnx.passes import quantization
        from birdsonnx.reporting import tables
        from birdsonnx.runtime import threads as sharing
        from birdsonnx.runtime.ranks import Ranks

        if method not in quantization.METHODS:
            raise ConfigError(f"--method {method!r} is none of {', '.join(quantization.METHODS)}")
        request = quantizing.Request(model, calibrate, output, photos, method, validate, max_drop, tag)
        done = quantizing.quantize(request, sharing.share(Ranks(), threads).threads, job.console())
        job.result = {
            "output": str(done.output),
            "calibrated_on": done.photos,
            "method": method,
            "bytes": {"float32": done.bytes_before, "int8": done.bytes_after},
            "validation": None if done.comparison is None else done.comparison.as_json(),
        }
        if done.comparison is not None:
            job.say(*tables.quantization_lines(done.comparison))
        job.say(
            f"wrote {done.output} ({done.bytes_after / 1e6:.1f} MB instead of {done.bytes_before / 1e6:.1f}, "
            f"calibrated on {done.photos} photos)"
        )


@app.command(epilog="Example: birdsonnx sample data/test test_samples")
def sample(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of class folders.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The new folder.")],
    per_class: Annotated[int, typer.Option(min=1, help="Photos of each class.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the choice.")] = 0,
    tag: Tag = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy random photos of every class into one flat folder, named class + file name."""
    with running(json, debug) as job:
        from birdsonnx.images import sampling

        taken = sampling.sample(source, destination, per_class, seed, tag)
        job.result = {
            "destination": str(destination),
            "photos": taken.names,
            "in_class_order": taken.in_class_order,
        }
        job.say(f"copied {len(taken.names)} photos to {destination}")
        if not taken.in_class_order:
            job.say(
                "note: name order is not class order here (one class name begins another); compare with "
                "'birdsonnx evaluate', not by position"
            )


@app.command(
    epilog="Example: birdsonnx plot out_classifier.txt, or birdsonnx plot --augmented config_train.json"
)
def plot(
    outfile: Annotated[
        str | None, typer.Argument(help="The config's outfile; its _train and _test logs are read.")
    ] = None,
    augmented: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG", help="Instead: training photos as this config's first epochs see them."
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
    """Draw a run's loss and accuracy curves, or what its random transforms make of photos."""
    with running(json, debug) as job:
        if outfile is not None and augmented is None:
            path = _plot_curves(outfile, output)
        elif augmented is not None and outfile is None:
            path = _plot_augmented(job, augmented, output)
        else:
            raise ConfigError("plot takes either an outfile or --augmented CONFIG")
        job.result["output"] = str(path)
        job.say(f"wrote {path}")


def _plot_curves(outfile: str, output: Path | None) -> Path:
    from birdsonnx.reporting import plots, training_log

    path = output or Path(outfile).with_suffix(".png")
    plots.plot_curves(training_log.read_curves(outfile), path, Path(outfile).stem)
    return path


def _plot_augmented(job: Job, config: Path, output: Path | None) -> Path:
    from birdsonnx.config import reading as configs
    from birdsonnx.reporting import augmentation, plots

    path = output or config.with_name(f"{config.stem}_augmented.png")
    shown = augmentation.preview(configs.read(config), job.say)
    plots.plot_preview(shown, path, config.name)
    job.result = {
        "photos": [row.name for row in shown.rows],
        "epochs": list(shown.epochs),
        "note": shown.note,
    }
    job.say(shown.note)
    return path


@app.command(
    epilog="Example: birdsonnx benchmark models/resnet50_birds.onnx --data data/test --plot speed.png"
)
def benchmark(
    model: Annotated[
        Path | None,
        typer.Argument(help="The .onnx (default: the newest checkpoint under model_checkpoints_save/)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PHOTOS", help="Photo, folder or glob pattern to predict (default: JPEGs made for it)."
        ),
    ] = None,
    seconds: Annotated[str, typer.Option(metavar="SECONDS", help="Time for all measuring together.")] = "60",
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,N,...", help="Photos per run of the bare session.")
    ] = "1,4,8",
    threads: Annotated[
        list[str] | None,
        typer.Option(metavar="N", help="Cores to use, may be repeated (default: 1, 2, 4 ... up to all)."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the JSON here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw speed and latency by batch as PNG.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model here: load, first prediction, speed and latency in memory and from files, memory."""
    with running(json, debug) as job:
        from birdsonnx import artifacts, doctor
        from birdsonnx.inference import benchmark as measuring
        from birdsonnx.reporting import plots, tables
        from birdsonnx.runtime.threads import available_cores

        ranks = job.join_ranks()
        cores = len(available_cores())
        request = measuring.Request(
            model,
            data,
            _seconds(seconds),
            _whole_numbers("--batch-sizes", batch_sizes.split(","), LARGEST_BATCH),
            _whole_numbers("--threads", threads, cores, " (the cores of this process)") if threads else None,
        )
        if plot is not None:
            plots.require_drawable(plot)
        found = _agreed(lambda: measuring.run(request, ranks, job.console()))
        environment = doctor.examine()  # only now: it loads what would show in the memory
        job.result = {**found.as_json(), "environment": environment}
        job.say(*tables.benchmark_lines(found))
        for refusal in found.refused:
            print(f"birdsonnx: refused: {_printable(refusal)}", file=sys.stderr)
        if output is not None:
            artifacts.write_json(output, job.result)
        if plot is not None:
            plots.plot_benchmark(found, plot, f"{found.model}, {environment['cpu']}, {cores} cores")
        job.say(*(f"wrote {path}" for path in (output, plot) if path))
        job.code = SOME_REFUSED if found.refused else DONE


@app.command(epilog="Example: birdsonnx info models/resnet50_birds.onnx")
def info(
    model: Annotated[Path, typer.Argument(help="A birdsonnx .onnx.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What a model holds: classes, preprocessing, parameters, training history."""
    with running(json, debug) as job:
        from birdsonnx.model import model_file
        from birdsonnx.reporting import tables

        job.result = tables.model_info(model_file.load(model), model)
        job.say(*tables.info_lines(job.result))


@app.command(epilog="Example: birdsonnx doctor")
def doctor(json: Json = False, debug: Debug = False) -> None:
    """What this installation and machine can do; exit code 1 where something is in the way."""
    with running(json, debug) as job:
        from birdsonnx import doctor as examination

        job.result = examination.examine()
        job.say(*examination.lines(job.result))
        job.code = SOME_REFUSED if job.result["problems"] else DONE


@app.command(epilog="Example: birdsonnx demo demo/")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes; must be new or empty.")] = Path(
        "demo"
    ),
    weights: Annotated[
        str, typer.Option(help="ResNet50 backbone weights: a file, imagenet (download), or none (random).")
    ] = "none",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole road in about two minutes on images it makes itself, offline."""
    with running(json, debug) as job:
        from birdsonnx import demo as demonstration

        job.result = demonstration.run(folder, weights, job.say)


@app.command(epilog="Example: birdsonnx schema -o birdsonnx.config.schema.json")
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write (default: print it).")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The config as JSON Schema, with which editors complete and check it."""
    with running(json, debug) as job:
        from birdsonnx import artifacts
        from birdsonnx.config.schema import config_schema

        if output is None:
            job.result = config_schema()
            job.say(json_format.dumps(job.result, indent=2))
        else:
            artifacts.write_json(output, config_schema())
            job.result["output"] = str(output)
            job.say(f"wrote {output}")


def _direction(value: str) -> str:
    if value not in ("onnx", "keras"):
        raise ConfigError(f"--to {value!r} is neither onnx nor keras")
    return value


def _refuse_options(context: typer.Context, names: Sequence[str], what: str) -> None:
    """Raises ConfigError where one of these options was given."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning with {what}; leave it out")


def _precision(value: str | None) -> str | None:
    if value not in (None, "fp32", "int8"):
        raise ConfigError(f"--precision {value!r} is neither fp32 nor int8")
    return value


def _one_config(positional: Path | None, option: Path | None) -> Path:
    if positional is not None and option is not None:
        raise ConfigError("two configs are given; give one")
    path = positional or option
    if path is None:
        raise ConfigError("no config given: birdsonnx train config.json")
    return path


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds {word!r}: give a number above 0")
    return seconds


def _whole_numbers(option: str, words: Sequence[str], most: int, why: str = "") -> tuple[int, ...]:
    for word in words:
        if not word.strip().isdecimal() or not 1 <= int(word) <= most:
            raise ConfigError(f"{option} {word!r}: give whole numbers from 1 to {most}{why}")
    return tuple(int(word) for word in words)


def _agreed(produce: Callable[[], T]) -> T:
    """A step that goes the same way on every rank, so that its error is everyone's."""
    try:
        return produce()
    except BirdsonnxError as error:
        error.agreed = True
        raise


def main() -> None:
    """Entry point of the `birdsonnx` command."""
    app()
